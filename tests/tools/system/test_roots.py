"""What grants cover by name."""

import pytest

from agentpool import ToolError
from agentpool.tools.system._roots import MAX_PATH_CHARS, Root, Roots, join, split


def root(text: str, name: str, real: str | None = None) -> Root:
    """Return a root that is called *name* and really is at *real*."""
    return Root(text=text, name=split(name), real=split(name if real is None else real))


HERE = root(".", "/srv/job", "/real/srv/job")
ROOTS = Roots(folder=HERE, granted=(root("data", "/srv/job/data", "/real/srv/job/data"),))
ALL = Roots(folder=HERE, granted=(Root(text="*", name=(), real=()),))


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("data/a.txt", "/real/srv/job/data/a.txt"),
        ("./data//a.txt/", "/real/srv/job/data/a.txt"),
        (".", "/real/srv/job"),
        ("/srv/job/data/a.txt", "/real/srv/job/data/a.txt"),
        ("/real/srv/job/data", "/real/srv/job/data"),
        ("/srv/jobs", "/srv/jobs"),
        ("data/../b", "/real/srv/job/data/../b"),
        ("/", "/"),
    ],
)
def test_a_path_is_found_from_the_one_folder(path: str, place: str) -> None:
    """The grant's own way to write it is as good as the real one."""
    assert join(ROOTS.locate(path)) == place


@pytest.mark.parametrize("path", ["", "a\0b", "a" * (MAX_PATH_CHARS + 1)])
def test_a_path_that_can_name_nothing_is_refused(path: str) -> None:
    """Before any system call sees it."""
    with pytest.raises(ToolError, match="a path is 1 to") as caught:
        ROOTS.locate(path)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("place", "covered", "passed"),
    [
        ("/real/srv/job/data", True, True),
        ("/real/srv/job/data/a/b", True, True),
        ("/real/srv/job/database", False, False),
        ("/real/srv/job", False, True),
        ("/real", False, True),
        ("/", False, True),
        ("/srv", False, False),
        ("/real/etc", False, False),
    ],
)
def test_a_place_is_covered_by_containment(place: str, *, covered: bool, passed: bool) -> None:
    """And a walk may pass what lies above a root, seeing only that it is there."""
    assert ROOTS.covers(split(place)) is covered
    assert ROOTS.may_pass(split(place)) is passed


@pytest.mark.parametrize("path", ["/proc", "/proc/self/environ", "/proc/1/root/etc/passwd"])
def test_a_star_does_not_cover_the_memory_of_this_process(path: str) -> None:
    """Its environment has the keys of every driver."""
    assert ALL.covers(split("/etc/passwd"))
    assert ALL.covers(())
    assert not ALL.covers(split(path))
    slash = Roots(folder=HERE, granted=(root("/", "/"),))
    assert not slash.covers(split(path))
    named = Roots(folder=HERE, granted=(root("/proc/cpuinfo", "/proc/cpuinfo"),))
    assert named.covers(split("/proc/cpuinfo"))
    assert not named.covers(split(path))


def test_what_is_outside_is_told_with_what_is_granted() -> None:
    """So that a model can put it right; and it learns nothing else."""
    assert str(ROOTS.outside("../x")) == "path '../x' is outside of what is granted: data"
