
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const REASONS = data.reasons, TIMED = data.seconds !== null, TOTAL = Math.max(data.seconds, 1e-6);
  const LABELS = {
    queued: "queued", parked: "parked", gate: "at a gate", budget: "at a budget", retry: "before a retry",
    approval: "awaiting approval", model: "model, before its first piece", answer: "model writes",
    tool: "in a tool", own: "own code",
  };

  // --- agents, as the lists of the data have them

  const agents = data.agents.map((a) => ({
    id: a[0], name: a[1], parent: a[2], status: a[3], spawned: a[4][0], started: a[4][1], finished: a[4][2],
    turns: a[5], requests: a[6][0], failedRequests: a[6][1], in: a[7][0], out: a[7][1], cached: a[7][2], unmeasured: a[7][3], unknown: a[7][4],
    tokens: a[7][0] + a[7][1], cost: a[8], allTokens: a[9][0], allCost: a[9][1], allUnmeasured: a[9][2], calls: a[10][0],
    failedCalls: a[10][1], query: a[11], system: data.words[a[12]], error: a[13], stop: a[14], life: a[15],
    said: a[16], cuts: a[17], begun: a[18], failedAt: a[19], children: [], depth: 0, seconds: 0,
  }));
  const byId = new Map(agents.map((a) => [a.id, a]));
  for (const a of agents) {
    const parent = byId.get(a.parent);
    if (parent) parent.children.push(a);
    a.end = a.finished === null ? TOTAL : a.finished;
    a.seconds = a.end - a.spawned;
    a.queued = (a.started === null ? a.end : a.started) - a.spawned;
    a.ran = a.started === null ? 0 : a.end - a.started;
  }
  const rows = [];
  {
    const rest = agents.filter((a) => !byId.has(a.parent)).reverse();
    while (rest.length) {
      const a = rest.pop();
      rows.push(a);
      for (let i = a.children.length - 1; i >= 0; i--) {
        a.children[i].depth = a.depth + 1;
        rest.push(a.children[i]);
      }
    }
  }
  const each = (a, tell) => {
    const life = a.life;
    for (let i = 0; i + 4 < life.length; i += 4) tell(life[i], life[i + 4], life[i + 1], life[i + 2], life[i + 3]);
  };

  // --- words

  const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;
  const clean = (text) => String(text).replace(HIDDEN, (c) =>
    `⟨U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
  const seconds = (s) => {
    if (!TIMED) return "?";
    if (s === null || s === undefined) return "";
    if (s < 0.0995) return `${(s * 1000).toFixed(s < 0.00995 ? 1 : 0)} ms`;
    if (s < 60) return `${s.toFixed(s < 10 ? 2 : 1)} s`;
    const whole = Math.round(s), h = Math.floor(whole / 3600), m = Math.floor((whole % 3600) / 60);
    return h ? `${number(h)} h${m ? ` ${m} min` : ""}` : `${m} min${whole % 60 ? ` ${whole % 60} s` : ""}`;
  };
  const number = (n) => (n === null || n === undefined ? "" : n.toLocaleString("en"));
  const count = (n, noun) => `${number(n)} ${noun}${n === 1 ? "" : "s"}`;
  const tokens = (n, unmeasured) => (unmeasured ? (n ? `${number(n)}+?` : "?") : number(n));
  const money = (n) => (n === null || n === undefined ? "?"
    : n === 0 ? "$0" : n < 1e-4 ? "<$0.0001" : `$${n.toFixed(4)}`);
  const make = (tag, props, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(props || {})) {
      if (name === "class") node.className = value;
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "text") node.textContent = clean(value);
      else node.setAttribute(name, value);
    }
    node.append(...children.filter((c) => c !== null && c !== undefined));
    return node;
  };
  const colours = {};
  const readColours = () => {
    const style = getComputedStyle(document.documentElement);
    for (const name of [...REASONS, "ink", "soft", "line", "panel", "bg", "accent", "bad", "odd", "good", "hover"]) {
      colours[name] = style.getPropertyValue(`--${name}`).trim();
    }
    REASONS.forEach((name, i) => { colours[i] = colours[name]; });
  };
  readColours();

  // --- the legend, with what each reason took of all agents together

  const spent = REASONS.map(() => 0);
  for (const a of agents) each(a, (from, to, reason) => { spent[reason] += to - from; });
  const drawLegend = () => {
    $("legend").replaceChildren(...REASONS.map((name, i) => {
      if (!spent[i]) return null;
      const box = make("i");
      box.style.background = colours[name];
      return make("li", {}, box, `${LABELS[name]} `, make("b", { text: seconds(spent[i]) }));
    }).filter(Boolean));
  };

  // --- lanes

  const ROW = 22, AXIS = 24, SLOTS = 34, HEAD = AXIS + SLOTS + 6;
  const chart = $("chart"), canvas = $("lanes"), spacer = $("spacer"), tip = $("tip");
  const draw2d = canvas.getContext("2d");
  const view = { from: 0, to: TOTAL, selected: null, hits: null, path: false, hover: null };
  let width = 0, height = 0, gutter = 180;
  const path = new Map();
  for (const [id, from, to] of data.path) (path.get(id) || path.set(id, []).get(id)).push([from, to]);
  const placeOf = new Map(rows.map((a, i) => [a.id, i]));
  const x = (t) => gutter + ((t - view.from) / (view.to - view.from)) * (width - gutter - 8);
  const timeAt = (px) => view.from + ((px - gutter) / (width - gutter - 8)) * (view.to - view.from);

  // How many run at each moment, as steps.
  const steps = [];
  {
    const off = new Set(["queued", "parked", "gate", "budget", "retry", "approval"].map((n) => REASONS.indexOf(n)));
    const changes = [];
    for (const a of agents) {
      let running = false;
      each(a, (from, to, reason) => {
        const runs = !off.has(reason);
        if (runs !== running) changes.push([from, runs ? 1 : -1]);
        running = runs;
      });
      if (running) changes.push([a.end, -1]);
    }
    changes.sort((p, q) => p[0] - q[0]);
    let count = 0;
    for (const [at, by] of changes) {
      count += by;
      if (steps.length && steps[steps.length - 1][0] === at) steps[steps.length - 1][1] = count;
      else steps.push([at, count]);
    }
  }
  const most = Math.max(data.slots || 1, ...(steps.length < 5e4 ? steps.map((s) => s[1]) : [1]));

  // Thousands of lanes do not fit: all of them as one small picture, to find one's way by.
  const small = $("overview"), SMALL = 110;
  const overview = () => {
    if (rows.length <= 60) return;
    small.hidden = false;
    const ratio = window.devicePixelRatio || 1, wide = small.clientWidth || chart.clientWidth;
    small.width = Math.floor(wide * ratio);
    small.height = Math.floor(SMALL * ratio);
    const g = small.getContext("2d"), w = small.width, h = small.height;
    // Pixel by pixel: of a million intervals most share theirs, and the first one has it.
    const kept = `${w} ${h} ${colours.panel}`;
    if (picture && picture.kept === kept) {
      g.putImageData(picture.image, 0, 0);
      g.setTransform(ratio, 0, 0, ratio, 0, 0);
      frame(g, wide);
      return;
    }
    const image = g.createImageData(w, h), pixels = new Uint32Array(image.data.buffer);
    const per = w / TOTAL, queued = REASONS.indexOf("queued"), bad = word(colours.bad), ground = word(colours.panel);
    const paint = REASONS.map((_, i) => word(colours[i]));
    const high = Math.max(1, Math.floor(h / rows.length));
    const fill = (left, right, top, colour, over) => {
      for (let y = top; y < Math.min(h, top + high); y++) {
        for (let px = y * w + left, end = y * w + right; px <= end; px++) if (over || !pixels[px]) pixels[px] = colour;
      }
    };
    rows.forEach((a, i) => {
      const top = Math.floor((i / rows.length) * h);
      let last = -1;
      each(a, (from, to, reason) => {
        if (reason === queued && rows.length > 300) return;
        const right = Math.floor(to * per);
        if (right === last) return;
        last = right;
        fill(Math.floor(from * per), Math.min(w - 1, Math.floor(to * per)), top, paint[reason], false);
      });
    });
    rows.forEach((a, i) => {
      if (a.status !== "failed") return;
      const at = Math.floor(a.end * per);
      fill(Math.max(0, at - 1), Math.min(w - 1, at + 1), Math.floor((i / rows.length) * h), bad, true);
    });
    for (let px = 0; px < pixels.length; px++) if (!pixels[px]) pixels[px] = ground;
    picture = { kept, image };
    g.putImageData(image, 0, 0);
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    frame(g, wide);
  };
  let picture = null;
  const word = (colour) => {
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
    return (255 << 24 | blue << 16 | green << 8 | red) >>> 0;
  };
  const frame = (g, wide) => {
    const per = wide / TOTAL;
    const first = chart.scrollTop / ROW, seen = Math.min(rows.length, (height - HEAD) / ROW);
    g.strokeStyle = colours.ink;
    g.strokeRect(view.from * per + 0.5, (first / rows.length) * SMALL + 0.5,
      Math.max(4, (view.to - view.from) * per - 1), Math.max(4, (seen / rows.length) * SMALL - 1));
  };
  let later = 0;
  const overviewSoon = () => { if (rows.length > 60) { clearTimeout(later); later = setTimeout(overview, 60); } };
  small.addEventListener("click", (event) => {
    const box = small.getBoundingClientRect(), row = ((event.clientY - box.top) / SMALL) * rows.length;
    chart.scrollTop = row * ROW - (height - HEAD) / 2;
    const span = Math.min(view.to - view.from, TOTAL / 20), centre = ((event.clientX - box.left) / box.width) * TOTAL;
    view.from = Math.max(0, Math.min(TOTAL - span, centre - span / 2));
    view.to = view.from + span;
    draw();
  });

  const layout = () => {
    const ratio = window.devicePixelRatio || 1;
    width = chart.clientWidth;
    gutter = width < 560 ? 92 : Math.min(220, Math.max(140, width * 0.16));
    const whole = HEAD + rows.length * ROW + 6;
    const max = Math.min(window.innerHeight * 0.64, 720);
    height = Math.floor(Math.min(whole, max));
    canvas.width = Math.max(1, Math.floor(width * ratio));
    canvas.height = Math.max(1, Math.floor(height * ratio));
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    spacer.style.height = `${Math.max(0, whole - height)}px`;
    draw2d.setTransform(ratio, 0, 0, ratio, 0, 0);
    draw();
  };

  const tick = (span) => {
    const rough = span / Math.max(2, (width - gutter) / 110), power = 10 ** Math.floor(Math.log10(rough));
    const even = [30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
    return (rough > 20 && even.find((n) => n >= rough)) || [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  };

  const drawHead = () => {
    const g = draw2d;
    g.fillStyle = colours.panel;
    g.fillRect(0, 0, width, HEAD);
    g.font = "11px system-ui, sans-serif";
    g.fillStyle = colours.soft;
    g.textBaseline = "middle";
    g.textAlign = "center";
    const step = tick(view.to - view.from);
    for (let t = Math.ceil(view.from / step) * step; t <= view.to + 1e-9; t += step) {
      const px = x(t);
      if (px < gutter) continue;
      g.fillText(t === 0 ? "0" : seconds(t), Math.min(px, width - 22), AXIS / 2);
      g.fillRect(px, AXIS - 5, 1, 5);
    }
    // Slots in use: an area under the same axis.
    const base = AXIS + SLOTS, scale = (SLOTS - 6) / most;
    g.textAlign = "left";
    g.fillText(`slots, ${number(data.slots)}`, 8, AXIS + SLOTS / 2);
    g.fillStyle = colours.answer;
    g.globalAlpha = 0.35;
    g.beginPath();
    g.moveTo(gutter, base);
    let count = 0, last = gutter;
    for (const [at, now] of steps) {
      if (at > view.to) break;
      const px = Math.max(gutter, x(at));
      if (px - last > 0.3 || now > count) {
        // Up or down to what held since the last one, which may be less than a pixel away.
        g.lineTo(last, base - count * scale);
        g.lineTo(px, base - count * scale);
        g.lineTo(px, base - now * scale);
        last = px;
      }
      count = now;
    }
    g.lineTo(last, base - count * scale);
    g.lineTo(width - 8, base - count * scale);
    g.lineTo(width - 8, base);
    g.fill();
    g.globalAlpha = 1;
    g.strokeStyle = colours.line;
    const top = base - data.slots * scale;
    g.setLineDash([3, 3]);
    g.beginPath();
    g.moveTo(gutter, top + 0.5);
    g.lineTo(width - 8, top + 0.5);
    g.stroke();
    g.setLineDash([]);
    g.fillStyle = colours.line;
    g.fillRect(0, HEAD - 1, width, 1);
    for (const [at, , what] of data.marks) {
      const px = x(at);
      if (px < gutter || px > width - 8) continue;
      g.fillStyle = what === "BudgetReached" || what === "EventsMissed" ? colours.bad : colours.odd;
      g.beginPath();
      g.moveTo(px - 4, AXIS);
      g.lineTo(px + 4, AXIS);
      g.lineTo(px, AXIS + 6);
      g.fill();
    }
  };

  const drawLane = (a, top) => {
    const g = draw2d, middle = top + ROW / 2;
    if (a === view.selected || a === view.hover) {
      g.fillStyle = colours.hover;
      g.fillRect(0, top, width, ROW);
    }
    g.globalAlpha = view.hits && !view.hits.has(a.id) ? 0.25 : 1;
    const bar = (from, to, colour) => {
      const left = Math.max(gutter, x(from)), right = Math.min(width - 8, x(to));
      if (right < gutter || left > width - 8) return;
      g.fillStyle = colour;
      g.fillRect(left, top + 4, Math.max(right - left, 0.75), ROW - 8);
    };
    let lastPixel = -1, lastReason = -1;
    each(a, (from, to, reason) => {
      if (to < view.from || from > view.to) return;
      // Many intervals in one pixel: the first stands for them.
      const pixel = Math.floor(x(to));
      if (pixel === lastPixel && reason === lastReason) return;
      bar(from, to, colours[reason]);
      lastPixel = pixel;
      lastReason = reason;
    });
    // A call that failed: a red edge below what its agent did meanwhile.
    for (const [from, to] of a.failedAt) {
      const left = Math.max(gutter, x(from)), right = Math.min(width - 8, Math.max(x(to), x(from) + 3));
      if (right < gutter || left > width - 8) continue;
      g.fillStyle = colours.bad;
      g.fillRect(left, top + ROW - 8, Math.max(right - left, 3), 5);
    }
    if (a.status === "failed" || a.status === "cancelled" || a.status === "stopped") {
      const px = x(a.end);
      if (px >= gutter && px <= width - 4) {
        g.fillStyle = a.status === "failed" ? colours.bad : colours.odd;
        g.fillRect(px - 1, top + 2, 3, ROW - 4);
      }
    }
    if (view.path && path.has(a.id)) {
      g.strokeStyle = colours.ink;
      g.lineWidth = 1.5;
      for (const [from, to] of path.get(a.id)) {
        const left = Math.max(gutter, x(from)), right = Math.min(width - 8, x(to));
        if (right > left) g.strokeRect(left, top + 3, right - left, ROW - 6);
      }
      g.lineWidth = 1;
    }
    // Its name, below its parent's.
    g.save();
    g.beginPath();
    g.rect(0, top, gutter - 6, ROW);
    g.clip();
    const indent = 8 + Math.min(a.depth, 6) * 11;
    g.font = "12px system-ui, sans-serif";
    g.textBaseline = "middle";
    g.textAlign = "left";
    g.fillStyle = colours.soft;
    g.fillText(String(a.id), indent, middle);
    const shift = indent + g.measureText(`${a.id} `).width + 3;
    g.fillStyle = a.status === "failed" ? colours.bad : colours.ink;
    g.fillText(clean(a.name).slice(0, 80), shift, middle);
    g.restore();
    g.globalAlpha = 1;
  };

  const rowTop = (id) => HEAD + placeOf.get(id) * ROW - chart.scrollTop;
  const arrow = (fromId, toId, at, colour, dashed) => {
    if (!placeOf.has(fromId) || !placeOf.has(toId)) return;
    const g = draw2d, px = x(at);
    if (px < gutter || px > width - 8) return;
    const from = rowTop(fromId) + ROW / 2, to = rowTop(toId) + ROW / 2;
    if (Math.max(from, to) < HEAD || Math.min(from, to) > height) return;
    const down = to > from ? 1 : -1;
    g.strokeStyle = g.fillStyle = colour;
    g.setLineDash(dashed ? [3, 3] : []);
    g.beginPath();
    g.moveTo(px, Math.max(HEAD, from));
    g.lineTo(px, Math.max(HEAD, to - down * 5));
    g.stroke();
    g.setLineDash([]);
    if (to < HEAD) return;
    g.beginPath();
    g.moveTo(px, to);
    g.lineTo(px - 3.5, to - down * 7);
    g.lineTo(px + 3.5, to - down * 7);
    g.fill();
  };
  const drawArrows = () => {
    const about = view.selected, all = rows.length <= 40;
    if (!all && !about) return;
    const wanted = (one, other) => all || one === about.id || other === about.id;
    for (const a of all ? rows : [about, ...about.children]) {
      if (wanted(a.id, a.parent)) arrow(a.parent, a.id, a.spawned, colours.soft, false);
      if (a.status === "cancelled" && a.error) {
        const by = /was cancelled by agent (\d+)/.exec(a.error[1]);
        if (by) arrow(Number(by[1]), a.id, a.end, colours.bad, false);
      }
      each(a, (from, to, reason, word, target) => {
        if (target && wanted(a.id, target)) arrow(target, a.id, to, colours.parked, true);
      });
    }
    for (const [at, from, to] of data.messages) if (wanted(from, to)) arrow(from, to, at, colours.approval, false);
  };

  let asked = false;
  const draw = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      const g = draw2d;
      g.fillStyle = colours.panel;
      g.fillRect(0, 0, width, height);
      g.fillStyle = colours.line;
      const step = tick(view.to - view.from);
      for (let t = Math.ceil(view.from / step) * step; t <= view.to; t += step) {
        const px = x(t);
        if (px >= gutter) g.fillRect(px, HEAD, 0.5, height);
      }
      const first = Math.floor(chart.scrollTop / ROW);
      for (let i = first; i < rows.length && HEAD + i * ROW - chart.scrollTop < height; i++) {
        drawLane(rows[i], HEAD + i * ROW - chart.scrollTop);
      }
      drawArrows();
      drawHead();
      overviewSoon();
    });
  };

  const zoom = (by, about) => {
    const centre = about ?? (view.from + view.to) / 2;
    const span = Math.min(TOTAL, Math.max(TOTAL / 1e6, (view.to - view.from) * by));
    const part = (centre - view.from) / (view.to - view.from);
    view.from = Math.max(0, Math.min(TOTAL - span, centre - span * part));
    view.to = view.from + span;
    draw();
  };
  const pan = (by) => {
    const span = view.to - view.from;
    view.from = Math.max(0, Math.min(TOTAL - span, view.from + by));
    view.to = view.from + span;
    draw();
  };
  const fit = () => { view.from = 0; view.to = TOTAL; draw(); };

  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    const px = event.clientX - box.left, py = event.clientY - box.top;
    const row = Math.floor((py - HEAD + chart.scrollTop) / ROW);
    return { px, agent: py > HEAD ? rows[row] || null : null, time: timeAt(px) };
  };
  const showTip = (event) => {
    const { px, agent, time } = at(event);
    if (view.hover !== agent) { view.hover = agent; draw(); }
    if (!agent) { tip.hidden = true; return; }
    let text = `${agent.id} ${agent.name}: ${agent.status}${agent.stop ? `, ${agent.stop}` : ""}`;
    if (px >= gutter) {
      each(agent, (from, to, reason, word) => {
        if (time < from || time >= to) return;
        const detail = data.words[word] ? ` (${data.words[word].slice(0, 200)})` : "";
        text += `\n${LABELS[REASONS[reason]]}${detail}\n${seconds(to - from)}, from ${seconds(from)}`;
      });
      if (agent.failedAt.some(([from, to]) => time >= from && time <= to)) text += "\na tool failed here";
    } else text += `\n${seconds(agent.seconds)}, ${tokens(agent.tokens, agent.unmeasured)} tokens, ${money(agent.cost)}`;
    tip.textContent = clean(text);
    tip.hidden = false;
    tip.style.left = `${Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.min(event.clientY + 16, window.innerHeight - tip.offsetHeight - 8)}px`;
  };
  let dragged = null;
  canvas.addEventListener("pointerdown", (event) => { dragged = { x: event.clientX, moved: 0 }; });
  window.addEventListener("pointerup", () => { setTimeout(() => { dragged = null; }); });
  canvas.addEventListener("pointermove", (event) => {
    if (dragged && event.buttons) {
      const by = dragged.x - event.clientX;
      dragged.moved += Math.abs(by);
      dragged.x = event.clientX;
      pan((by / (width - gutter - 8)) * (view.to - view.from));
    }
    showTip(event);
  });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; view.hover = null; draw(); });
  canvas.addEventListener("click", (event) => {
    if (dragged && dragged.moved > 4) return;
    const { agent } = at(event);
    if (agent) go(agent.id);
  });
  chart.addEventListener("scroll", draw, { passive: true });
  chart.addEventListener("wheel", (event) => {
    if (!(event.ctrlKey || event.metaKey || event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY))) return;
    event.preventDefault();
    if (event.ctrlKey || event.metaKey) zoom(Math.exp(event.deltaY * 0.002), at(event).time);
    else pan(((event.deltaX || event.deltaY) / width) * (view.to - view.from));
  }, { passive: false });
  chart.addEventListener("keydown", (event) => {
    const place = view.selected ? placeOf.get(view.selected.id) : -1;
    const keys = {
      ArrowDown: () => select(rows[Math.min(rows.length - 1, place + 1)]),
      ArrowUp: () => select(rows[Math.max(0, place - 1)]),
      ArrowLeft: () => pan(-(view.to - view.from) / 10),
      ArrowRight: () => pan((view.to - view.from) / 10),
      "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1 / 0.6), 0: fit,
      Enter: () => view.selected && go(view.selected.id),
    };
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
  const select = (agent) => {
    view.selected = agent || null;
    if (agent) {
      const top = placeOf.get(agent.id) * ROW, room = height - HEAD - ROW;
      if (top < chart.scrollTop) chart.scrollTop = top;
      if (top > chart.scrollTop + room) chart.scrollTop = top - room;
    }
    draw();
  };
  $("in").onclick = () => zoom(0.6);
  $("out").onclick = () => zoom(1 / 0.6);
  $("fit").onclick = fit;
  $("path").onchange = (event) => { view.path = event.target.checked; draw(); };

  // --- search

  const texts = (a) => [a.name, a.query, a.error ? a.error[1] : "", ...a.said.map((m) => m[1]), ...a.cuts.map((c) => c[3]), ...a.begun];
  let wanted = "";
  const search = () => {
    wanted = $("search").value.trim().toLowerCase();
    view.hits = wanted ? new Set(agents.filter((a) => texts(a).some((t) => t.toLowerCase().includes(wanted))).map((a) => a.id)) : null;
    $("hits").textContent = view.hits ? `${number(view.hits.size)} agents` : "";
    if (view.hits && view.hits.size) select(rows.find((a) => view.hits.has(a.id)));
    else draw();
  };
  let waiting = 0;
  $("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(search, 150); });

  // --- one agent

  const marked = (text) => {
    const node = make("pre"), shown = clean(text);
    if (!wanted) { node.textContent = shown; return node; }
    const lower = shown.toLowerCase();
    let from = 0;
    for (let i = lower.indexOf(wanted); i >= 0; i = lower.indexOf(wanted, from)) {
      node.append(shown.slice(from, i), make("mark", { text: shown.slice(i, i + wanted.length) }));
      from = i + wanted.length;
    }
    node.append(shown.slice(from));
    return node;
  };
  const drawer = $("drawer");
  const link = (a) => make("a", { href: `#agent=${a.id}`, text: `${a.id} ${a.name}` });
  const conversation = (a, turn) => {
    const results = new Map();
    a.said.forEach((m, i) => { if (m[0] === "tool" || m[0] === "failed") (results.get(m[2]) || results.set(m[2], []).get(m[2])).push(i); });
    const shown = new Set(), nodes = [], cuts = a.cuts.slice();
    const cut = ([, before, words, summary]) => {
      nodes.push(make("div", { class: "said cut" }, make("b", { text: `before turn ${before}, ${words}` }), summary ? marked(summary) : null));
    };
    const fate = (stub, gone) => (gone ? `, not sent since turn ${gone}` : stub ? `, sent as a stub since turn ${stub}` : "");
    const took = (s) => (s === null || !TIMED ? "" : `, ${seconds(s)}`);
    a.said.forEach((m, i) => {
      while (cuts.length && cuts[0][0] <= i) cut(cuts.shift());
      if (shown.has(i)) return;
      const [kind, text, more, number_, s, stub, gone] = m;
      const here = kind === "model" && number_ > 0 && number_ === turn;
      const heading = kind === "model" ? (number_ ? `turn ${number_}` : "an earlier answer") : kind === "user" ? "told" : kind === "failed" ? "tool, failed" : "tool";
      const node = make("div", { class: `said ${kind}${gone ? " gone" : ""}${here ? " here" : ""}` },
        make("b", { text: heading + took(s) + fate(stub, gone) }));
      if (here) node.id = "here";
      if (text) node.append(marked(text));
      if (kind === "model") {
        for (const [id, name, args, ran] of more) {
          const queue = results.get(id) || [], place = queue.shift();
          const result = place === undefined ? null : a.said[place];
          if (place !== undefined) shown.add(place);
          node.append(make("div", { class: "call" },
            make("div", {}, make("b", { text: `calls ${name}` }), marked(args)),
            make("div", { class: result && result[5] && !gone ? "stub" : result && result[0] === "failed" ? "broke" : "" },
              make("b", { text: (result ? (result[0] === "failed" ? "failed" : "returned") + took(ran) + (gone ? "" : fate(result[5], result[6])) : "no result") }),
              result ? marked(result[1]) : null)));
        }
      }
      nodes.push(node);
    });
    cuts.forEach(cut);
    const [thoughts, text] = a.begun;
    if (thoughts) nodes.push(make("div", { class: "said model" }, make("b", { text: "thinks, as far as it had come" }), marked(thoughts)));
    if (text) nodes.push(make("div", { class: "said model" }, make("b", { text: "an answer, as far as it had come" }), marked(text)));
    return nodes;
  };
  const open = (a, turn) => {
    const split = make("div", { class: "split" });
    const totals = REASONS.map(() => 0);
    each(a, (from, to, reason) => { totals[reason] += to - from; });
    totals.forEach((s, i) => {
      if (!s) return;
      const part = make("span", { title: `${LABELS[REASONS[i]]}: ${seconds(s)}` });
      part.style.background = colours[i];
      part.style.flex = `${s} 0 0`;
      split.append(part);
    });
    const parent = byId.get(a.parent);
    const facts = [...(TIMED ? [`queued ${seconds(a.queued)}`, `ran ${seconds(a.ran)}`, `from ${seconds(a.spawned)}`] : []), count(a.turns, "turn"), count(a.requests, "request"),
      `${tokens(a.tokens, a.unmeasured)} tokens (${number(a.cached)} cached)`, money(a.cost), ...a.unknown, count(a.calls, "tool call")];
    drawer.replaceChildren(
      make("button", { class: "close", text: "Close", onclick: () => { location.hash = ""; } }),
      make("h2", { text: `${a.id} ${a.name}` }),
      make("p", { class: "facts" }, make("span", { class: `status ${a.status}`, text: a.status + (a.stop ? ` (${a.stop})` : "") }),
        ` · ${facts.join(" · ")}`, parent ? make("span", {}, " · below ", link(parent)) : null),
      split,
      ...(a.children.length ? [make("p", { class: "facts" }, `${a.children.length} below it: `,
        ...a.children.slice(0, 30).flatMap((c) => [link(c), " "]))] : []),
      ...(a.error ? [make("div", { class: "said failed" }, make("b", { text: a.error[0] }), marked(a.error[1]),
        a.error[2] ? make("details", {}, make("summary", { text: "traceback" }), make("pre", { text: a.error[2] })) : null)] : []),
      ...(a.system ? [make("div", { class: "said user" }, make("b", { text: "system" }), marked(a.system))] : []),
      ...conversation(a, turn),
    );
    if (!a.said.length && !a.begun[1]) drawer.append(make("p", { class: "facts", text: "Its conversation is not in this page." }));
    drawer.hidden = false;
    drawer.scrollTop = 0;
    const here = $("here");
    if (here) here.scrollIntoView({ block: "center" });
    select(a);
  };
  const openNone = (id) => {
    drawer.replaceChildren(
      make("button", { class: "close", text: "Close", onclick: () => { location.hash = ""; } }),
      make("h2", { text: `There is no agent ${id}` }),
      make("p", { class: "facts", text: `The link names an agent that is not in this trace. It has ${number(agents.length)} agents.` }),
    );
    drawer.hidden = false;
  };
  const go = (id) => { location.hash = `#agent=${id}`; };
  const follow = () => {
    const said = new URLSearchParams(location.hash.slice(1)), a = byId.get(Number(said.get("agent")));
    if (a) open(a, Number(said.get("turn")) || 0);
    else if (said.get("agent")) openNone(said.get("agent"));
    else drawer.hidden = true;
  };
  window.addEventListener("hashchange", follow);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !drawer.hidden) { location.hash = ""; chart.focus(); }
    if (event.key === "/" && !/INPUT|TEXTAREA/.test(document.activeElement.tagName)) { event.preventDefault(); $("search").focus(); }
  });

  // --- tables

  const ownTokens = (n, i) => tokens(n, agents[i].unmeasured), allTokens = (n, i) => tokens(n, agents[i].allUnmeasured);
  const known = (n) => (n === null ? "?" : number(n));
  const NUMERIC = new Set([number, known, seconds, money, ownTokens, allTokens]);
  const TABLES = {
    Agents: {
      columns: ["agent", "status", "turns", "requests", "tool calls", "queued", "ran", "tokens", "with children", "cost", "with children", "asked"],
      rows: () => agents.map((a) => [`${a.id} ${a.name}`, a.status, a.turns, a.requests, a.calls, a.queued, a.ran, a.tokens, a.allTokens, a.cost, a.allCost, a.query]),
      show: [null, null, number, number, number, seconds, seconds, ownTokens, allTokens, money, money, (q) => q.slice(0, 140)],
      open: (i) => go(agents[i].id), link: (i) => `#agent=${agents[i].id}`, linked: 0, key: [(i) => agents[i].id],
    },
    "Slowest calls": {
      columns: ["took", "call", "agent", "turn", "began", "ended"], rows: () => data.slow.map(([what, id, turn, from, took, ending]) => [took, what, id, turn, from, ending]),
      show: [seconds, null, (id) => { const a = byId.get(id); return a ? `${id} ${a.name}` : String(id); }, number, seconds, null],
      open: (i) => { location.hash = `#agent=${data.slow[i][1]}&turn=${data.slow[i][2]}`; }, link: (i) => `#agent=${data.slow[i][1]}&turn=${data.slow[i][2]}`, linked: 2,
    },
    Tools: { columns: ["tool", "calls", "failed", "p50", "p95"], rows: () => data.tools, show: [null, number, number, seconds, seconds] },
    Models: {
      columns: ["model", "answers", "tokens in", "tokens out", "cached", "cost", "p50", "p50 to first piece"],
      rows: () => data.models, show: [null, number, known, known, known, money, seconds, seconds],
    },
    Messages: {
      columns: ["at", "from", "to", "number", "answers", "text", "dead letter"], rows: () => data.messages,
      show: [seconds, (n) => n || "owner", (n) => n || "owner", number, number, (t) => t.slice(0, 300), null],
    },
  };
  const state = { name: "Agents", by: null, down: false, limit: 200 };
  const table = () => {
    const about = TABLES[state.name], filter = $("filter").value.trim().toLowerCase();
    let lines = about.rows().map((cells, i) => [cells, i]);
    if (filter) lines = lines.filter(([cells]) => cells.some((c) => String(c ?? "").toLowerCase().includes(filter)));
    if (state.by !== null) {
      const key = about.key && about.key[state.by];
      const value = ([cells, i]) => (key ? key(i) : cells[state.by]);
      lines.sort((p, q) => {
        const one = value(p), other = value(q);
        const order = typeof one === "number" && typeof other === "number" ? one - other : String(one ?? "").localeCompare(String(other ?? ""));
        return state.down ? -order : order;
      });
    }
    const numeric = about.show.map((f) => NUMERIC.has(f));
    const head = about.columns.map((name, i) => make("th", { class: numeric[i] ? "number" : "", "aria-sort": state.by === i ? (state.down ? "descending" : "ascending") : "none" },
      make("button", { text: name + (state.by === i ? (state.down ? " ↓" : " ↑") : ""), onclick: () => { state.down = state.by === i ? !state.down : numeric[i]; state.by = i; table(); } })));
    const body = lines.slice(0, state.limit).map(([cells, i]) => make("tr", about.open ? { class: "link", onclick: () => about.open(i) } : {},
      ...cells.map((c, j) => {
        const text = clean(about.show[j] ? about.show[j](c, i) : c ?? "");
        const cell = make("td", { class: (numeric[j] ? "number" : text.length > 60 ? "wide" : "") });
        if (about.open && j === about.linked) cell.append(make("a", { href: about.link(i), text }));
        else if (about.columns[j] === "status") cell.append(make("span", { class: `status ${c}`, text }));
        else cell.textContent = text;
        return cell;
      })));
    const left = lines.length - body.length;
    $("table").replaceChildren(
      make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body)),
      ...(left > 0 ? [make("button", { text: `Show more (${number(left)} left)`, onclick: () => { state.limit += 1000; table(); } })] : []),
      ...(lines.length ? [] : [make("p", { text: "None." })]),
    );
  };
  const tabs = () => {
    $("tabs").replaceChildren(...Object.keys(TABLES).map((name) => make("button", {
      role: "tab", "aria-selected": String(name === state.name), text: `${name} ${number(TABLES[name].rows().length)}`,
      onclick: () => { Object.assign(state, { name, by: null, down: false, limit: 200 }); tabs(); table(); },
    })));
  };
  $("filter").addEventListener("input", () => { state.limit = 200; table(); });

  // --- the circle of a deadlock

  const SVG = "http://www.w3.org/2000/svg";
  const svg = (tag, props, text) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(props)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = clean(text);
    return node;
  };
  for (const place of document.querySelectorAll("[data-circle]")) {
    const ids = place.dataset.circle.split(" ").map(Number), n = ids.length;
    const point = (i, r) => { const turn = (2 * Math.PI * i) / n - Math.PI / 2; return [180 + r * Math.cos(turn), 120 + r * 0.85 * Math.sin(turn)]; };
    const picture = svg("svg", { viewBox: "0 0 360 240", role: "img", "aria-label": place.textContent });
    ids.forEach((id, i) => {
      const from = (2 * Math.PI * (i + 0.16)) / n - Math.PI / 2, to = (2 * Math.PI * (i + 0.84)) / n - Math.PI / 2;
      const spot = (t) => [180 + 82 * Math.cos(t), 120 + 70 * Math.sin(t)];
      const [x1, y1] = spot(from), [x2, y2] = spot(to), [cx, cy] = [180 + 96 * Math.cos((from + to) / 2), 120 + 82 * Math.sin((from + to) / 2)];
      picture.append(svg("path", { d: `M${x1} ${y1} Q${cx} ${cy} ${x2} ${y2}` }));
      const angle = Math.atan2(y2 - cy, x2 - cx);
      for (const side of [-0.5, 0.5]) picture.append(svg("path", { d: `M${x2} ${y2} L${x2 - 9 * Math.cos(angle + side)} ${y2 - 9 * Math.sin(angle + side)}` }));
    });
    ids.forEach((id, i) => {
      const [px, py] = point(i, 82);
      picture.append(svg("circle", { cx: px, cy: py, r: 15 }), svg("text", { x: px, y: py + 4, "text-anchor": "middle" }, String(id)));
      const agent = byId.get(id);
      if (agent) picture.append(svg("text", { x: px, y: py + (py > 120 ? 30 : -21), "text-anchor": "middle" }, agent.name.slice(0, 24)));
    });
    place.append(picture);
  }

  // --- begin

  $("timeline").hidden = !TIMED;
  $("tables").hidden = false;
  drawLegend();
  tabs();
  table();
  layout();
  follow();
  new ResizeObserver(layout).observe(chart);
  matchMedia("screen and (prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); drawLegend(); draw(); });
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
})();
