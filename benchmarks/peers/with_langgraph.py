"""langgraph: a graph of a model and a tool, `await graph.ainvoke(...)` for each run."""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from one import Ask, Run

PACKAGE, IMPORT = "langgraph", "from langgraph.graph import StateGraph"


class State(TypedDict):
    """The messages of a run."""

    messages: Annotated[list[dict[str, Any]], operator.add]


def add(x: int) -> int:
    """Add one."""
    return x + 1


def runner(ask: Ask, calls: int) -> Run:
    """Make a graph whose model calls the tool as often as it is told."""

    async def model(state: State) -> dict[str, Any]:
        await ask()
        called = len(state["messages"]) // 2
        if called == calls:
            return {"messages": [{"role": "assistant", "content": "done"}]}
        return {"messages": [{"role": "assistant", "call": called}]}

    async def tool(state: State) -> dict[str, Any]:  # noqa: ASYNC124  # the framework wants it so
        number = state["messages"][-1]["call"]
        return {"messages": [{"role": "tool", "content": str(add(number))}]}

    def after(state: State) -> str:
        return "tool" if "call" in state["messages"][-1] else END

    graph = StateGraph(State)
    graph.add_node("model", model)
    graph.add_node("tool", tool)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", after, ["tool", END])
    graph.add_edge("tool", "model")
    compiled = graph.compile()

    async def run() -> object:
        start: State = {"messages": [{"role": "user", "content": "go"}]}
        return await compiled.ainvoke(start, {"recursion_limit": 2 * calls + 10})

    return run
