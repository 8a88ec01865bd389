"""How answers were lost or spoilt, and inputs of public reports: brought back one at a time.

As in ``tests.mutation.faults``, which runs them.
"""

from __future__ import annotations

from typing import Final

from tests.mutation.fault import Fault

LOST: Final = (
    Fault(
        "A1", "a cut answer is continued though it was not asked for", "_loop/text_answer.py",
        'if spent is None and run.manifest.model.on_cut == "continue":', "if spent is None:",
        "tests/loop/test_loop.py", "a_cut_answer_ends_the_run_unless",
    ),
    Fault(
        "A2", "equal calls are a loop whatever came of them", "_loop/guard.py",
        "                    seen.count = 1\n", "                    pass\n",
        "tests/loop/test_guard.py", "equal_calls_with_different_results",
    ),
    Fault(
        "A3", "a supervision that gives up keeps the outcomes to itself", "_pool/supervisor.py",
        "            error.outcomes = tuple(self._all)\n", "",
        "tests/pool/test_kept_outcomes.py", "a_supervision_that_gives_up",
    ),
    Fault(
        "A4", "nobody joins the children", "_pool/fan_in.py",
        "        if missing := len(self.active) + owned:\n",
        "        if missing := len(self.active) + 0 * owned:\n",
        "tests/pool/test_kept_outcomes.py", "joining_the_children_waits",
    ),
    Fault(
        "A6", "what a cancelled agent has written is not counted", "_agent/attempt.py",
        "    if not was_cut:\n",
        "    if was_cut:\n        return Loss(0, 0.0)\n    if not was_cut:\n",
        "tests/agent/test_agent.py", "what_an_agent_has_written_when",
    ),
    Fault(
        "A7", "results wait for those before them", "_cli/_arguments.py",
        "ordered=not (found.unordered or found.json or found.output_dir is not None),",
        "ordered=True,",
        "tests/cli/test_map.py", "results_written_before_a_kill",
    ),
    Fault(
        "A9", "messages have no tag", "_messages.py",
        'gc=False, tag_field="role", tag="assistant"', 'gc=False, tag_field="role", tag="user"',
        "tests/test_saved.py", "a_conversation_comes_back",
    ),
    Fault(
        "A10", "the traceback of a tool is thrown away", "_errors/errors.py",
        'return "".join(traceback.format_exception(error))[-MAX_TRACEBACK_CHARACTERS:]',
        "return str(error)",
        "tests/agent/test_agent.py", "where_a_tool_broke",
    ),
    Fault(
        "A12", "a call that had begun is told as one that never did", "_loop/run.py",
        "state = BEGUN if index in batch.begun else NOT_RUN", "state = NOT_RUN",
        "tests/agent/test_agent.py", "g10_cancelled_tools_have_results",
    ),
    Fault(
        "A14", "turns leave a window that is full without a word", "_agent/driving.py",
        "        agent.hub.tell(WindowCut, agent.agent_id, agent.name, *told)\n", "",
        "tests/loop/test_window.py", "what_leaves_a_window_is_an_event",
    ),
    Fault(
        "A15", "a hang names a line of the library", "testing/_simulation/places.py",
        "return _LIBRARY if filename.startswith((_PACKAGE, *_OTHERS)) else _OURS", "return _OURS",
        "tests/testing/test_findings.py", "a_hang_in_a_pool",
    ),
    Fault(
        "A16", "a wrong type is found where it breaks something", "_checks.py",
        "        if name in found and name not in but and not",
        "        if name in found and name in but and not",
        "tests/test_bad_input.py", "each_argument_of_a_wrong_type",
    ),
    Fault(
        "B8", "accents make another word", "memory/_word_search.py",
        'text = _ACCENTS.sub("", unicodedata.normalize("NFKD", text))',
        'text = unicodedata.normalize("NFKD", text)',
        "tests/memory/test_word_search.py", "a_word_is_found_where",
    ),
    Fault(
        "B8", "a word with a particle is another one", "memory/_word_search.py",
        '            yield from signs\n        yield from map("".join, pairwise(signs))\n',
        "            yield signs\n",
        "tests/memory/test_word_search.py", "a_word_is_found_where",
    ),
    Fault(
        "B9", "a path may have a tab and a line break", "_manifest/parts.py",
        "    if any(ord(sign) < FIRST_PRINTABLE for sign in path):\n", "    if path is None:\n",
        "tests/manifest/test_manifest.py", "a_path_that_toml_has_changed",
    ),
    Fault(
        "B10", "a lone line feed is written into a file with others", "tools/builtin/_files.py",
        '.replace("\\r\\n", "\\n").replace("\\n", end) for part', " for part",
        "tests/tools/builtin/test_files.py", "a_file_keeps_its_own_line_ends",
    ),
    Fault(
        "B13", "UTF-16 passes for a text with NULs", "_cli/_inputs.py",
        '    if "\\0" in text:\n', "    if not what:\n",
        "tests/cli/test_map.py", "utf_16_without_a_mark",
    ),
)  # fmt: skip
