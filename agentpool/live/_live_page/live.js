"use strict";
// Draws what the pool says, and sends what a person wants. Text is only ever set as text.
const $ = (id) => document.getElementById(id);
const token = location.hash.slice(1);
const A = { id: 0, name: 1, parent: 2, status: 3, reason: 4, detail: 5, since: 6, ended: 7, turns: 8,
  tokens: 9, cost: 10, model: 11, query: 12, words: 13, strip: 14 };
const DOES = { queued: "waits for a slot", parked: "waits", gate: "waits at a gate", budget: "waits for budget",
  retry: "asks again soon", approval: "waits for you", model: "thinks", answer: "writes", tool: "uses",
  own: "works" };
let last = null, lastAt = 0;

function shown(text) {
  return String(text).replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (c) =>
    c === "\n" || c === "\t" ? " " : "\u27e8U+" + c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") + "\u27e9");
}
function make(kind, name, text) {
  const node = document.createElement(kind);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = shown(text);
  return node;
}
function setText(node, text) { const t = shown(text); if (node.textContent !== t) node.textContent = t; }
function seconds(s) {
  if (s < 60) return s.toFixed(1) + " s";
  const m = Math.floor(s / 60);
  return m < 60 ? m + " min " + Math.floor(s % 60) + " s" : Math.floor(m / 60) + " h " + (m % 60) + " min";
}
const number = (n) => Math.round(n).toLocaleString("en-US");
const money = (n) => n === null ? "?" : n === 0 ? "$0" : n < 1e-4 ? "<$0.0001" : "$" + n.toFixed(4);
const colour = (reason) => getComputedStyle(document.documentElement).getPropertyValue("--" + reason).trim();
const now = () => last.ended_page ? last.seconds : last.seconds + (performance.now() - lastAt) / 1000;

let toldTimer = 0;
function tell(text) {
  const told = $("told");
  told.textContent = shown(text); told.hidden = false;
  clearTimeout(toldTimer); toldTimer = setTimeout(() => { told.hidden = true; }, 4000);
}
async function act(what) {
  try {
    const answer = await fetch("/do", { method: "POST", body: JSON.stringify(what),
      headers: { "Content-Type": "application/json", "X-Agentpool-Token": token } });
    tell(await answer.text());
  } catch { tell("the pool cannot be reached"); }
}
// What ends something wants a second click within four seconds.
function twice(button, act_) {
  const words = button.textContent;
  let armed = 0;
  button.addEventListener("click", () => {
    if (armed) { clearTimeout(armed); armed = 0; button.textContent = words; button.classList.remove("sure"); act_(); return; }
    button.textContent = "Sure?"; button.classList.add("sure");
    armed = setTimeout(() => { armed = 0; button.textContent = words; button.classList.remove("sure"); }, 4000);
  });
}

const rows = new Map();
function row(id) {
  let node = rows.get(id);
  if (node) return node;
  node = make("div", "agent");
  node.dataset.agent = id;
  const who = make("div");
  who.append(make("b"), document.createElement("br"), make("small"));
  const strip = make("div", "strip");
  strip.append(document.createElement("canvas"));
  const buttons = make("div", "do");
  const interrupt = make("button", "interrupt", "After this turn"), cancel = make("button", "cancel", "Cancel");
  interrupt.title = "End it after its current turn"; cancel.title = "End it now";
  twice(interrupt, () => act({ do: "interrupt", agent: id }));
  twice(cancel, () => act({ do: "cancel", agent: id }));
  buttons.append(interrupt, cancel);
  node.append(who, make("div", "doing"), strip, buttons, make("div", "words"));
  node.querySelector(".doing").append(make("i"), make("span"));
  rows.set(id, node);
  return node;
}
function drawRow(a, begin, end) {
  const node = row(a[A.id]), over = a[A.ended] !== null;
  node.className = "agent" + (over ? " over " + a[A.status] : "");
  const name = node.querySelector("b");
  setText(name, a[A.id] + " " + a[A.name]);
  name.dataset.status = a[A.status];
  const of = a[A.parent] ? "child of " + a[A.parent] + " · " : "";
  setText(node.querySelector("small"), of + "turn " + a[A.turns] + " · " + a[A.tokens] + " tokens · " + money(a[A.cost]) + (a[A.model] ? " · " + a[A.model] : ""));
  const doing = node.querySelector(".doing");
  doing.firstChild.style.background = colour(over ? "line" : a[A.reason]);
  const what = a[A.detail] && a[A.reason] !== "approval" ? (a[A.reason] === "parked" ? " for " : " ") + a[A.detail] : "";
  setText(doing.lastChild, over ? "ended after " + seconds(a[A.ended] - (a[A.strip][0] ?? a[A.ended])) : (DOES[a[A.reason]] || a[A.reason]) + what + " · " + seconds(Math.max(0, end - a[A.since])));
  setText(node.querySelector(".words"), a[A.words] || a[A.query]);
  node.querySelector(".do").style.visibility = over ? "hidden" : "visible";
  strip(node.querySelector("canvas"), a, begin, end);
}
function strip(canvas, a, begin, end) {
  const width = canvas.clientWidth, ratio = devicePixelRatio || 1;
  if (!width) return;
  if (canvas.width !== Math.round(width * ratio)) { canvas.width = Math.round(width * ratio); canvas.height = Math.round(16 * ratio); }
  const draw = canvas.getContext("2d"), scale = canvas.width / Math.max(end - begin, 0.001);
  draw.clearRect(0, 0, canvas.width, canvas.height);
  const flat = a[A.strip].slice();
  flat.push(a[A.since], last.reasons.indexOf(a[A.reason]));
  for (let i = 0; i < flat.length; i += 2) {
    const from = flat[i], to = i + 2 < flat.length ? flat[i + 2] : a[A.ended] ?? end;
    if (to <= begin) continue;
    draw.fillStyle = colour(last.reasons[flat[i + 1]]);
    const x = Math.max(0, (from - begin) * scale);
    draw.fillRect(x, 0, Math.max(1, (to - begin) * scale - x), canvas.height);
  }
}

const calls = new Map();
function drawCalls() {
  const waiting = new Set(last.calls.map((c) => c[0]));
  for (const [id, node] of calls) if (!waiting.has(id)) { node.remove(); calls.delete(id); }
  for (const [id, agent, name, parent, tool, args, seen] of last.calls) {
    if (calls.has(id)) continue;
    const node = make("div", "ask");
    node.dataset.call = id;
    const asks = make("p");
    asks.append(make("b", "", tool), make("span", "", " wanted by agent " + agent + (parent ? ", child of " + parent : "") + ", " + name));
    const text = document.createElement("textarea");
    text.value = args; text.spellcheck = false; text.setAttribute("aria-label", "Arguments");
    const line = make("div", "row"), why = document.createElement("input");
    why.placeholder = "Why not? The model is told."; why.setAttribute("aria-label", "Reason");
    const yes = make("button", "yes approve", "Approve"), no = make("button", "deny", "Deny");
    text.addEventListener("input", () => { yes.textContent = text.value === args ? "Approve" : "Approve with these"; });
    yes.addEventListener("click", () => act(text.value === args ? { do: "approve", call: id } : { do: "change", call: id, arguments: text.value }));
    no.addEventListener("click", () => act({ do: "deny", call: id, reason: why.value }));
    line.append(yes, no, why);
    node.append(asks, make("p", "with", seen), text, line);
    $("calls-list").append(node);
    calls.set(id, node);
  }
  $("calls").hidden = last.calls.length === 0;
}

const limits = new Map();
function drawBudget() {
  const budget = last.statistics.budget;
  $("budget").hidden = !budget;
  if (!budget) return;
  for (const [key, name, kind] of [["tokens", "tokens", "tokens"], ["cost", "US dollars", "cost_usd"], ["requests", "requests", "requests"], ["tool_calls", "tool calls", "tool_calls"]]) {
    const meter = budget[key];
    let node = limits.get(key);
    if (!node) {
      node = make("div", "limit"); node.dataset.kind = kind;
      const bar = document.createElement("meter"), line = make("div", "row"), input = document.createElement("input"), set = make("button", "", "Set");
      input.placeholder = "new limit"; input.inputMode = "decimal"; input.setAttribute("aria-label", "New limit of " + name);
      twice(set, () => { const v = input.value.trim(); act({ do: "limit", kind, limit: v === "" ? null : Number(v) }); input.value = ""; });
      line.append(make("span"), input, set);
      node.append(make("span", "", name), bar, line);
      $("limits").append(node); limits.set(key, node);
    }
    const bar = node.querySelector("meter"), show = key === "cost" ? (n) => n.toFixed(4) : number;
    bar.max = meter.limit ?? 1; bar.high = bar.max * 0.8; bar.value = meter.limit === null ? 0 : meter.committed;
    setText(node.querySelector(".row span"), show(meter.committed) + " of " + (meter.limit === null ? "no limit" : show(meter.limit)) + (meter.reserved ? ", " + show(meter.reserved) + " set aside" : ""));
  }
}
function drawNews() {
  const list = $("news"), key = JSON.stringify(last.news);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...last.news.map(([at, level, id, name, text]) => {
    const item = make("li", level);
    item.append(make("strong", "", seconds(at)), make("span", "", (id ? "  " + id + " " + name : "") + "  " + text));
    return item;
  }));
  if (!last.news.length) list.append(make("li", "", "Nothing so far."));
}
function card(name, value, more) {
  const node = make("div", (more || "").length > 80 ? "card long" : "card");
  node.append(make("dt", "", name), make("dd", "", value), make("dd", "more", more || ""));
  return node;
}
function draw() {
  if (!last) return;
  const s = last.statistics, end = now(), begin = Math.max(0, end - 60);
  setText($("pool"), last.pool);
  document.title = shown(last.pool) + " · " + (last.calls.length ? last.calls.length + " waiting for you" : "agentpool");
  const ended = Object.entries(last.counts).map(([k, n]) => number(n) + " " + k).join(", ");
  $("cards").replaceChildren(
    card("agents", number(s.spawned), ended), card("time", seconds(end)),
    card("running", number(s.running) + " of " + number(s.max_concurrent), number(s.queued) + " queued, " + number(s.parked) + " waiting without a slot"),
    card("tokens", last.tokens, last.unknown_tokens.join("; ")),
    card("cost", money(last.cost), last.unknown.join("; ")));
  // Its colour is that of the worst that happened, as on the page of a trace.
  const went = last.counts.failed ? "bad" : Object.keys(last.counts).some((k) => k !== "completed") || last.news.some((n) => n[1] !== "note") ? "odd" : "";
  $("top").className = "top " + went;
  const all = last.agents.concat(last.ended), seen = new Set(all.map((a) => a[A.id]));
  for (const [id, node] of rows) if (!seen.has(id)) { node.remove(); rows.delete(id); }
  all.forEach((a, place) => { const node = row(a[A.id]); if ($("agents").children[place] !== node) $("agents").insertBefore(node, $("agents").children[place] || null); });
  for (const a of all) drawRow(a, begin, end);
  $("more").hidden = !last.more;
  setText($("more"), "and " + number(last.more) + " more that run or wait for a slot");
  if (document.activeElement !== $("slots") && !$("slots").dataset.touched) $("slots").value = s.max_concurrent;
  drawCalls(); drawBudget(); drawNews();
}
function state(name, text) { $("state").className = name; $("state").textContent = text; }
function legend() {
  $("legend").replaceChildren(...last.reasons.map((reason) => {
    const item = make("li"), box = make("i");
    box.style.background = colour(reason);
    item.append(box, document.createTextNode(reason));
    return item;
  }));
}
function take(text) {
  const first = !last;
  last = JSON.parse(text); lastAt = performance.now();
  if (first) legend();
  draw();
  document.body.dataset.ready = "1";
}
async function follow() {
  const answer = await fetch("/events", { headers: { "X-Agentpool-Token": token }, cache: "no-store" });
  if (!answer.ok) { state("off", answer.status === 403 ? "this link is not valid" : "cannot be shown"); return false; }
  state("on", "connected");
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return true;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    // Only the newest is drawn: a tab that slept has nothing to catch up with.
    if (parts.length) take(parts[parts.length - 1].slice(6));
  }
}
async function run() {
  for (let tries = 0; tries < 30; tries += 1) {
    try {
      if (!await follow()) return;
      tries = 0;
    } catch { /* the connection was lost: try again */ }
    if (last && last.ended_page) { state("", "ended"); return; }
    state("off", "connection lost");
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}
twice($("abort"), () => act({ do: "abort" }));
$("slots").addEventListener("input", () => { $("slots").dataset.touched = "1"; });
$("resize").addEventListener("click", () => { act({ do: "resize", slots: Number($("slots").value) }); delete $("slots").dataset.touched; });
setInterval(() => { if (last && !last.ended_page && !document.hidden) draw(); }, 500);
run();
