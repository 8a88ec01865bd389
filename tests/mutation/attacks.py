"""The ways in that attacks found, opened again one at a time.

As in ``tests.mutation.faults``, which runs them: each line here was the cure of an attack, and
without it the attack's test must be red.
"""

from __future__ import annotations

from typing import Final

from tests.mutation.fault import Fault

PROGRAMS: Final = "tools/system/_command_rules.py"
GROWTH: Final = "tests/test_growth.py"
TOOLS_GROWTH: Final = "tests/tools/test_growth.py"
SPENDING: Final = "tests/agent/test_spending.py"

ATTACKS: Final = (
    Fault(
        "H3", "ids of one name are tried from the first on", "drivers/wire/_call_ids.py",
        "self._attempts.get(call_id, 0)", "0",
        "tests/drivers/wire/test_growth.py", "ids_are_found_in_steps",
    ),
    Fault(
        "M10", "a list in a list is an event", "drivers/wire/_stream_answer.py",
        "if not any(isinstance(one, list) for one in found):", "if True:",
        "tests/drivers/wire/test_growth.py", "what_is_nested_in_an_event",
    ),
    Fault(
        "M8", "a message has any number of parts", "tools/mcp/_message_lines.py",
        "if has_too_many_nodes(line):", "if False:",
        "tests/tools/mcp/test_message_lines.py", "a_message_of_too_many_parts",
    ),
    Fault(
        "M8", "every part of a large message becomes an object", "tools/mcp/_trimmed.py",
        "    if len(message) <= SMALL_BYTES:\n", "    if message:\n",
        "tests/tools/mcp/test_trimmed.py", "what_is_read_does_not_grow",
    ),
    Fault(
        "M8", "and in a stream of events", "tools/mcp/_trimmed_http.py",
        "    if len(event) <= SMALL_BYTES:\n", "    if event:\n",
        "tests/tools/mcp/test_trimmed.py", "events_are_cut_one",
    ),
    Fault(
        "M6", "a heading in a disguise is none", "tools/builtin/_team.py",
        'return _HEADING.match("".join(plain).casefold()) is not None', "return False",
        "tests/messaging/test_team.py", "what_looks_like_a_heading",
    ),
    Fault(
        "L18", "a traceback's locals show the key", "drivers/_hosted.py",
        'HiddenText((api_key() if callable(api_key) else api_key) or "")',
        '(api_key() if callable(api_key) else api_key) or ""',
        "tests/drivers/test_shown_locals.py", "no_local_of_a_failed_request_shows_the_key",
    ),
    Fault(
        "L18", "they show the headers that are sent", "drivers/_http.py",
        "*hidden(self._headers.raw)]", "*self._headers.raw]",
        "tests/drivers/test_shown_locals.py", "no_local_of_a_request_that_cannot_be_sent",
    ),
    Fault(
        "L18", "they show the head of a request", "_connection.py",
        "@attrs.frozen(repr=False)\nclass RequestHead", "@attrs.frozen\nclass RequestHead",
        "tests/drivers/test_shown_locals.py", "no_local_of_a_failed_request_shows_the_key",
    ),
    Fault(
        "L18", "they show what a provider quotes", "drivers/_hosted.py",
        "forget_locals(error, outside=outside)", "del outside",
        "tests/drivers/test_shown_locals.py", "no_local_of_a_failed_request_shows_the_key",
    ),
    Fault(
        "L18", "they show it in an encoding", "drivers/_http.py",
        'came = shown(answer.headers_to_show()["content-encoding"])',
        'came = shown(encoding := answer.headers["content-encoding"])',
        "tests/drivers/test_shown_locals.py", "no_local_of_a_failed_request_shows_the_key",
    ),
    Fault(
        "L9", "a schema hides a text from people", "tools/mcp/_session.py",
        "if sign := hidden_sign(schema):", 'if sign := "":',
        "tests/tools/mcp/test_servers.py", "a_tool_with_a_hidden_text",
    ),
    Fault(
        "M9", "a closed terminal leaves programs", "_cli/_interrupt.py",
        'getattr(signal, "SIGHUP", None)', "None",
        "tests/cli/test_interrupt.py", "a_closed_terminal_ends",
    ),
    Fault(
        "L6", "a key in other letters is shown", "_secrets.py",
        "if secret.casefold() in text.casefold():", "if secret in text:",
        "tests/drivers/test_hostile_servers.py", "a_key_is_not_shown_in_other_letters",
    ),
    Fault(
        "M6", "a child's answer passes for a message", "tools/builtin/_team.py",
        "return any(map(_is_heading, text.splitlines()))", "return text is None",
        "tests/messaging/test_team.py", "an_answer_cannot_pass",
    ),
    Fault(
        "C1", "git runs what is somebody's alias", PROGRAMS,
        "return (None, argument) if argument in doors.commands else (argument, None)",
        "return None, argument",
        "tests/tools/system/test_programs.py", "doors_that_run",
    ),
    Fault(
        "C1", "and in one below", "tools/system/_links_before_programs.py",
        '            if (below / ".git").exists() or ', "            if ",
        "tests/tools/system/test_outward.py", "git_is_led_into_no_other",
    ),
    Fault(
        "C1", "a model configures git", "tools/system/_places.py",
        'if any(part.casefold() == ".git" for part in self.parts):', "if not self.parts:",
        "tests/tools/system/test_outward.py", "what_git_is_configured_by",
    ),
    Fault(
        "L3", "an archive is unpacked through a link", "tools/system/_links_before_programs.py",
        "        if entry.is_dir() or is_named or", "        if is_named or",
        "tests/tools/system/test_outward.py", "no_archive_is_unpacked_through_a_link",
    ),
    Fault(
        "H1", "marks are heaped", "_one_line.py",
        "if marks > _MAX_MARKS or is_unseen(sign)", "if is_unseen(sign)",
        "tests/test_one_line.py", "a_heap_of_marks",
    ),
    Fault(
        "L14", "a manifest's integers have no bound", "_manifest/toml_table.py",
        "            if abs(value) <= MAX_INTEGER:\n", "            if value is not None:\n",
        "tests/manifest/test_manifest.py", "a_value_of_the_wrong_type and large",
    ),
    Fault(
        "C1", "git works in another repository", PROGRAMS,
        '_leads_out(value := next(rest, "")):',
        '(value := next(rest, "")) is None:',
        "tests/tools/system/test_programs.py", "doors_that_run and elsewhere",
    ),
    Fault(
        "H1", "a name passes for what is asked", "_cli/_terminal_approver.py",
        "{child}, {one_line(request.agent_name, MAX_NAME_CHARS)},",
        "{child}, {request.agent_name},",
        "tests/cli/test_approve.py", "a_name_cannot_pass",
    ),
    Fault(
        "H1", "and on the live page", "live/_view.py",
        "        one_line(request.agent_name, MAX_NAME_CHARS),\n",
        "        request.agent_name,\n",
        "tests/live_page/test_live_page.py", "who_asks_cannot_hide",
    ),
    Fault(
        "H2", "a server chooses a codec", "tools/builtin/_http_request.py",
        'return name if name in CHARSETS else "utf-8"', "return name",
        "tests/tools/builtin/test_http_request.py", "a_server_does_not_choose",
    ),
    Fault(
        "H4", "marks in a row are sorted", "memory/_word_search.py",
        'text = _MARKS_IN_A_ROW.sub(r"\\1", text).casefold()', "text = text.casefold()",
        "tests/memory/test_word_search.py", "words_are_found_in_proportion",
    ),
    Fault(
        "H5", "each key is counted anew", "tools/_arguments.py",
        "times = Counter(name for name, _ in pairs)",
        "all_of = [name for name, _ in pairs]\n"
        "            times = {name: all_of.count(name) for name in all_of}",
        TOOLS_GROWTH, "arguments_are_read and twice",
    ),
    Fault(
        "H6", "every host is taken for this machine", "_cli/_mcp_server.py",
        "transport_security=security,", "transport_security=None,",
        "tests/cli/test_serve.py", "pages_of_other_sites",
    ),
    Fault(
        "H6", "and by the live page", "live/_access.py",
        'if headers.get("host", "") not in self.places:', 'if headers.get("host", "") == "":',
        "tests/live_page/test_live_page.py", "forged_requests",
    ),
    Fault(
        "M1", "a key goes to who is called alike", "_manifest/providers.py",
        'return host == own or host.endswith(f".{own}")', "return own in host",
        "tests/manifest/test_providers.py", "a_key_goes_to_its_own",
    ),
    Fault(
        "M2", "a check keeps quiet of what is handed on", "_cli/_check.py",
        '            yield f"  hands on ${one_line(name)} to it"\n', "            pass\n",
        "tests/cli/test_check.py", "it_says_what_is_started",
    ),
    Fault(
        "M3", "what the kernel knows is read", "tools/system/_places.py",
        "if numbered and os.fstat(fd).st_dev in kernel_devices():", "if not numbered and not fd:",
        "tests/tools/builtin/test_files.py", "what_the_kernel_knows",
    ),
    Fault(
        "M4", "a second answer waits in the TLS layer", "_connection.py",
        "return bool(stream._ssl_object.pending() or stream._incoming.pending)", "return False",
        "tests/drivers/test_http.py", "a_second_answer_over_tls",
    ),
    Fault(
        "M6", "a message passes for another one", "_loop/loop.py",
        "return UserMessage(as_data(heading, message.content))",
        'return UserMessage(f"{heading}\\n{message.content}")',
        "tests/messaging/test_team.py", "a_message_cannot_pass",
    ),
    Fault(
        "M7", "another program's file is taken", "_database/format.py",
        "or _schema(transaction) != _schema_of(kind, found):", "or found < 0:",
        "tests/memory/test_sqlite.py", "another_programs_file_is",
    ),
    Fault(
        "M10", "JSON is nested without end", "drivers/wire/_local_chat.py",
        "    except (msgspec.DecodeError, RecursionError) as exc:\n",
        "    except msgspec.DecodeError as exc:\n",
        "tests/drivers/wire/test_local_chat.py", "another_form_is",
    ),
    Fault(
        "M11", "all faults of an answer are listed", "tools/_arguments.py",
        "    if len(text) > _MAX_LISTED_CHARS:\n", "    if not text:\n",
        TOOLS_GROWTH, "of_a_long_answer_one_fault",
    ),
    Fault(
        "M12", "a key of a server's call is written twice", "tools/mcp/_tool_views.py",
        "    if repeated:\n", "    if not text:\n",
        "tests/tools/mcp/test_tool_views.py", "other_arguments_run_nothing",
    ),
    Fault(
        "M13", "clients that hang up keep their places", "_cli/_mcp_server.py",
        "        session_idle_timeout=IDLE_SESSION_SECONDS,\n", "",
        "tests/cli/test_serve_sessions.py", "a_session_that_is_not_used",
    ),
    Fault(
        "M13", "streams that are held open keep all places", "_cli/_mcp_sessions.py",
        "                await self._make_room(scope)\n", "                pass\n",
        "tests/cli/test_serve_sessions.py", "streams_that_are_held_open",
    ),
    Fault(
        "L1", "a secret file is for all while it is written", "tools/system/_places.py",
        "mode = 0o666 if instead_of is None else 0o600", "mode = 0o666",
        "tests/tools/builtin/test_files.py", "a_private_file_is",
    ),
    Fault(
        "L5", "a variable is handed on by its beginning", "_environ.py",
        "if name in ORDINARY or name in also}",
        'if name in ORDINARY or name in also or name.startswith("LC_")}',
        "tests/tools/builtin/test_shell.py", "keys_are_not_in_its",
    ),
    Fault(
        "L8", "files are made for all", "_disk_file.py",
        "OWNER_ALONE: Final = 0o600", "OWNER_ALONE: Final = 0o644",
        "tests/test_disk_file.py", "a_new_file_is_its_owners",
    ),
    Fault(
        "L9", "signs that no font shows are shown", "_one_line.py",
        "return not sign.isprintable() or _unseen().match(sign) is not None",
        "return not sign.isprintable()",
        "tests/test_one_line.py", "what_no_font_shows",
    ),
    Fault(
        "L11", "lines without a value are not counted", "drivers/wire/_sse.py",
        "self._event_bytes += len(value) + 1", "self._event_bytes += len(value)",
        "tests/drivers/wire/test_sse.py", "lines_without_a_value",
    ),
    Fault(
        "L12", "a stream is opened again at once", "tools/mcp/_http.py",
        "STREAM_GAP_SECONDS: Final = 0.5", "STREAM_GAP_SECONDS: Final = 0.0",
        "tests/tools/mcp/test_http.py", "streams_without_end",
    ),
    Fault(
        "L14", "a key of a manifest has any number of parts", "_manifest/toml_table.py",
        "        if re.search(_LONG_KEY, text):\n", "        if not text:\n",
        GROWTH, "text_from_outside and manifest and dotted",
    ),
    Fault(
        "L15", "a name behind an address is this machine", "_manifest/hosts.py",
        'if not bracket or (rest and not rest.startswith(":")):', "if not bracket:",
        "tests/manifest/test_manifest.py", "a_name_behind_a_literal",
    ),
    Fault(
        "L17", "a recording is nested without end", "testing/_recording.py",
        "    for _ in range(_MAX_LEVELS):\n        level = ",
        "    for _ in range(1):\n        level = [] if level else ",
        "tests/testing/test_recording.py", "what_differs_at_any_depth",
    ),
    Fault(
        "L8", "a device is replaced", "_disk_file.py",
        "    if not stat.S_ISREG(found.st_mode):\n", "    if found is None:\n",
        "tests/cli/test_written_files.py", "what_is_no_file and html and socket",
    ),
    Fault(
        "L13", "a journal's numbers are any", "journal/_rows.py",
        "if isinstance(value, int) and least <= value <= MOST:", "if isinstance(value, int):",
        "tests/journal/test_hostile_file.py", "numbers_of_no_journal",
    ),
    Fault(
        "L18", "half a key is none", "observe/_redact.py",
        "            if key[:half] in data:\n", "            if not data:\n",
        "tests/observe/test_trace.py", "half_of_a_key",
    ),
    Fault(
        "B7", "each wish to wait looks through the rest", "drivers/wire/_retry_after.py",
        "[a-z ]{0,80}?", "[a-z ]*?",
        GROWTH, "text_from_outside and waits and asks",
    ),
    Fault(
        "M10", "a tool's name grows without end", "drivers/wire/_partial_answer.py",
        "        if len(growing.name) > MAX_NAME_CHARS:\n", "        if growing is None:\n",
        GROWTH, "a_name_that_comes_in_pieces",
    ),
    Fault(
        "L11", "empty lines of a provider are read one by one", "drivers/wire/_sse.py",
        'if b"\\n\\n\\n" in piece:', "if not piece:",
        "tests/test_empty_lines.py", "empty_lines_take_steps_by_the_piece",
    ),
    Fault(
        "L11", "empty lines of a server are read one by one", "tools/mcp/_message_lines.py",
        '_BLANK_LINES.sub(b"\\n", data).split', "data.split",
        "tests/test_empty_lines.py", "empty_lines_take_steps_by_the_piece",
    ),
    Fault(
        "L11", "what is no line of a trace is decoded", "observe/_trace.py",
        '        if not line.startswith(b"{"):\n', "        if not line:\n",
        "tests/test_empty_lines.py", "lines_of_a_trace_that_are_no_objects_are_not_decoded",
    ),
    Fault(
        "L14", "a manifest's text has no bound", "_manifest/manifest.py",
        "        if len(text) > _MAX_BYTES:\n", "        if not expect:\n",
        "tests/manifest/test_manifest.py", "a_text_of_megabytes",
    ),
    Fault(
        "L14", "a faulty table is compared with all before it", "_manifest/toml_table.py",
        "for fault in ours}", "for fault in self.faults}",
        "tests/manifest/test_manifest.py", "many_faulty_tables",
    ),
    Fault(
        "M9", "a server's daemon outlives its block", "tools/mcp/_child.py",
        "await end_marked(self._mark)", 'await end_marked("")',
        "tests/tools/mcp/test_child.py", "a_daemon_of_a_server",
    ),
    Fault(
        "C1", "git runs the hooks of a repository that it pushes to", "tools/builtin/_shell.py",
        '    "GIT_CONFIG_VALUE_1": "never",\n', '    "GIT_CONFIG_VALUE_1": "always",\n',
        "tests/tools/system/test_outward.py", "git_gives_nothing",
    ),
    Fault(
        "C1", "git runs the hooks that an archive brings", "tools/system/_repository_check.py",
        '"GIT_CONFIG_VALUE_2": os.devnull', '"GIT_CONFIG_VALUE_2": ".git/hooks"',
        "tests/tools/system/test_repositories.py", "hooks_that_an_archive_brings",
    ),
    Fault(
        "C1", "and what it configures", "tools/system/_repository_settings.py",
        "if not is_own and not _is_harmless(key, value):", "if not is_own and key == value:",
        "tests/tools/system/test_repositories.py", "what_an_archive_configures",
    ),
    Fault(
        "C1", "and what it configures in a repository below", "tools/system/_repository_check.py",
        "    for one in below:\n", "    for one in below[:0]:\n",
        "tests/tools/system/test_repositories.py", "nor_what_it_configures",
    ),
    Fault(
        "C1", "and what it brings between the check and git", "tools/system/_exclusion.py",
        "if self._running and self._kind is not kind:", "if self._running < 0:",
        "tests/tools/system/test_repositories.py", "no_other_program_runs",
    ),
    Fault(
        "C1", "and what it brings for a submodule that is not there",
        "tools/system/_repository_settings.py",
        "    yield from inside\n", "    yield from inside[:0]\n",
        "tests/tools/system/test_repositories.py",
        "nor_what_it_configures_for_a_submodule_that_is_not_there",
    ),
    Fault(
        "C1", "git calls an alias as its own helper", "tools/system/_repository_settings.py",
        'return "-" not in key', "return True",
        "tests/tools/system/test_repositories.py", "what_an_archive_configures",
    ),
    Fault(
        "C1", "git writes a message through a link in its folder",
        "tools/system/_repository_folder.py",
        "        if (kind := _link_kind(entry, own)) is not None:\n",
        '        if (kind := _link_kind(entry, own)) == "":\n',
        "tests/tools/system/test_repositories.py", "git_writes_through_no_link_in_its_folder",
    ),
    Fault(
        "L3", "tar writes through a link to a file", PROGRAMS,
        '"-h", "--dereference", "--overwrite",\n', "\n",
        "tests/tools/system/test_repositories.py", "tar_writes_through_no_link",
    ),
    Fault(
        "C1", "git runs what is called like a strategy", PROGRAMS,
        '"--build-fake-ancestor", "--strategy",', '"--build-fake-ancestor",',
        "tests/tools/system/test_programs.py", "doors_that_run",
    ),
    Fault(
        "L3", "git writes a patch wherever its name leads", PROGRAMS,
        '"format-patch": ("-o", "--suffix",', '"format-patch": ("-o",',
        "tests/tools/system/test_programs.py", "doors_that_run",
    ),
    Fault(
        "L3", "an option of tar that is not known yet is let through", PROGRAMS,
        "for door in closed) or _is_unknown(word, doors):", "for door in closed):",
        "tests/tools/system/test_programs.py", "doors_that_run",
    ),
    Fault(
        "L4", "a carrier is not known by its other names", "tools/system/_program_runners.py",
        'return forms | {form.removeprefix("g") for form in forms}', "return {name}",
        "tests/tools/system/test_programs.py", "a_carrier_is_known_by",
    ),
    Fault(
        "H3", "what is no answer is looked through for others", "tools/_find_json.py",
        "            except (ValueError, RecursionError):\n                return\n",
        "            except (ValueError, RecursionError):\n"
        '                at = text.find("{", at + 1)\n                continue\n',
        "tests/tools/test_find_json.py", "what_is_no_object_is_not_found",
    ),
    Fault(
        "M8", "each of 400,000 blocks is looked at", "tools/mcp/_trimmed.py",
        "for one in blocks[:MAX_BLOCKS]]", "for one in blocks]",
        "tests/tools/mcp/test_trimmed.py", "a_model_is_told_what",
    ),
    Fault(
        "L2", "one file that cannot be read ends the search", "tools/system/_search_child.py",
        "with contextlib.suppress(OSError), opened_file(entry) as file:",
        "with contextlib.suppress(ValueError), opened_file(entry) as file:",
        "tests/tools/system/test_search_child.py", "a_file_that_cannot_be_read_does_not",
    ),
    Fault(
        "L7", "a model's process knows every key", "drivers/_local.py",
        "env=build_environ(os.environ, also=_COMPUTING),", "env=dict(os.environ),",
        "tests/drivers/test_local.py", "keys_are_not_in_the_environment",
    ),
    Fault(
        "L7", "a search knows every key", "tools/builtin/_search.py",
        "environ=build_environ(os.environ, also=LIBRARIES),", "environ=dict(os.environ),",
        "tests/tools/builtin/test_search.py", "keys_are_not_in_the_environment",
    ),
    Fault(
        "L10", "a file's name is written as it is", "_cli/_check.py",
        'sys.stderr.write("".join(f"{one_line(line)}\\n" for line in lines))',
        'sys.stderr.write("".join(f"{line}\\n" for line in lines))',
        "tests/cli/test_check.py", "a_files_name_does_not_steer",
    ),
    Fault(
        "L16", "a child speaks for another client's agent", "_cli/_mcp_tools.py",
        "isinstance(event, AgentSpawned) and event.parent_id == OWNER_ID:",
        "isinstance(event, AgentSpawned):",
        "tests/cli/test_serve.py", "progress_is_what",
    ),
    Fault(
        "L19", "a type of 60 KB is shown whole", "tools/builtin/_http_request.py",
        'lines.append(f"content-type: {one_line(kind, MAX_SHOWN_TYPE_CHARS)}")',
        'lines.append(f"content-type: {kind}")',
        "tests/tools/builtin/test_http_request.py", "a_server_does_not_choose",
    ),
    Fault(
        "L20", "a negative usage is taken for a measured one", "_loop/tokens.py",
        "or usage.input_tokens < 0\n", "or False\n",
        SPENDING, "a_usage_that_means_nothing",
    ),
    Fault(
        "L21", "each of 20,000 tools is looked at", "tools/mcp/_repaired_messages.py",
        'cast("list[object]", listed)[:MAX_TOOLS]', 'cast("list[object]", listed)',
        "tests/tools/mcp/test_repaired_messages.py", "of_20_000_tools",
    ),
    Fault(
        "L22", "a file with a hole is read to its end", "tools/builtin/_files.py",
        "            if skipped_bytes > MAX_SKIPPED_BYTES:\n",
        "            if skipped_bytes < 0:\n",
        "tests/tools/builtin/test_files.py", "a_line_far_away",
    ),
    Fault(
        "M14", "a copied reservation is settled again", "_base.py",
        "    def __copy__(self) -> NoReturn:", "    def __copied__(self) -> NoReturn:",
        "tests/test_copies.py", "what_counts_cannot_be_copied",
    ),
    Fault(
        "M14", "and one that msgspec made from it", "_budget/reservation.py",
        "if self._settled or self not in self._ledger.open:", "if self._settled:",
        "tests/test_copies.py", "a_reservation_made_from_another",
    ),
    Fault(
        "M14", "a copy of a config has a budget of its own", "_spawn.py",
        "memo[id(self.budget)] = self.budget",
        "memo[id(self.budget)] = Budget(tokens=1)",
        "tests/test_copies.py", "copies_of_a_config",
    ),
    Fault(
        "M15", "an impossible cost counts as the driver's price", "_agent/checked_answer.py",
        "    elif usage is not None:\n", "    if cost_usd is None and usage is not None:\n",
        "tests/agent/test_impossible_numbers.py", "a_cost_that_cannot_be",
    ),
    Fault(
        "M15", "an unknown cost of a free model is zero", "_agent/checked_answer.py",
        "paid.doubt_price()", "pass",
        "tests/agent/test_impossible_numbers.py", "a_cost_that_cannot_be",
    ),
    Fault(
        "M15", "half a token is counted", "_loop/tokens.py",
        "        type(usage.input_tokens) is not int\n        or", "        False\n        or",
        "tests/agent/test_impossible_numbers.py", "a_usage_that_is_no_count",
    ),
    Fault(
        "M15", "a ticket takes less than nothing", "drivers/_gate.py",
        "        at_least(0, attribute.name, tokens)\n", "        pass\n",
        "tests/drivers/test_gate_numbers.py", "used_tokens_of_a_wrong_kind",
    ),
    Fault(
        "M15", "a gate takes a request of less than nothing", "drivers/_gate.py",
        'self._enter(at_least(0, "tokens", tokens))', "self._enter(max(tokens, 0))",
        "tests/drivers/test_gate_numbers.py", "a_request_of_a_wrong_size",
    ),
    Fault(
        "M15", "a gate counts what an answer wrongly says", "drivers/_gated.py",
        "if isinstance(usage, Usage) and (usage := sound_usage(usage)) is not None:",
        "if usage is not None:",
        "tests/agent/test_impossible_numbers.py", "a_usage_that_is_no_count",
    ),
    Fault(
        "M14", "a tool is given more than its context", "_pool/agent_context.py",
        "    def list_agents(self) -> tuple[AgentInfo, ...]:\n",
        "    def count_others(self) -> int:\n        return 0\n\n"
        "    def list_agents(self) -> tuple[AgentInfo, ...]:\n",
        "tests/test_surface.py", "a_tool_is_given_what",
    ),
    Fault(
        "M14", "a tool leaves its agent by an empty context", "_pool/caller.py",
        "            if nursery is self._nursery:\n", "            if nursery is None:\n",
        "tests/pool/test_who_speaks.py", "a_tool_writes_as_its_agent",
    ),
    Fault(
        "M14", "a tool enters another agent by its context", "_pool/caller.py",
        "        elif slot.task is task and slot.keeper is self._admission:\n",
        "        elif slot.keeper is self._admission:\n",
        "tests/pool/test_who_speaks.py", "a_tool_writes_as_its_agent",
    ),
    Fault(
        "M14", "another agent's context is of use", "_pool/agent_context.py",
        "            self._voice.refuse_others(slot)\n", "            pass\n",
        "tests/pool/test_who_speaks.py", "the_context_of_an_agent",
    ),
    Fault(
        "M14", "a source of an agent's map is the owner", "_pool/map.py",
        "        feeds_for.set(asker)", "        feeds_for.set(None)",
        "tests/pool/test_who_speaks.py", "a_source_of_an_agents_map",
    ),
    Fault(
        "M14", "an observer chooses the sender by the event", "_pool/caller.py",
        "        return self._hub.listening and self._hub.is_telling\n",
        "        return self._hub.listening is None\n",
        "tests/pool/test_who_speaks.py", "what_an_observer_does_while_an_agents_map_is_fed",
    ),
)  # fmt: skip
