"""Images and documents beside a text: what they may be, and where they go."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import final

import pytest

from agentpool import AgentManifest, PrivacyTier, SpawnConfig, StopReason, UsageError, open_pool
from agentpool._attachments import (
    LEAST_IMAGE_TOKENS,
    MAX_ATTACHMENT_BYTES,
    MOST_IMAGE_TOKENS,
    MOST_PAGES,
    PDF_PAGE_TOKENS,
)
from agentpool.abc import Driver, OnDelta, ToolContext, ToolResult
from agentpool.drivers import (
    Attachment,
    Completion,
    CompletionRequest,
    FallbackDriver,
    GatedDriver,
    RequestGate,
    ScriptedDriver,
    ToolMessage,
    UserMessage,
    messages_from_json,
    messages_to_json,
)
from agentpool.tools import ToolRegistry, tool
from tests.support.fakes import calling, manifest, results_of, tool_call
from tests.support.measured_images import MEASURED_IMAGES


def png(width: int = 8, height: int = 8) -> bytes:
    """Return the beginning of a PNG image."""
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height) + b"\x08\x02\0\0\0"


def jpeg(width: int, height: int, *segments: bytes) -> bytes:
    """Return the beginning of a JPEG image."""
    before = b"".join(b"\xff\xe0" + struct.pack(">H", len(one) + 2) + one for one in segments)
    return b"\xff\xd8" + before + b"\xff\xc0\0\x11\x08" + struct.pack(">HH", height, width)


def webp(width: int, height: int) -> bytes:
    """Return the beginning of a WebP image."""
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + size


def gif(width: int, height: int) -> bytes:
    """Return the beginning of a GIF image."""
    return b"GIF89a" + struct.pack("<HH", width, height)


PDF = b"%PDF-1.7\n1 0 obj <</Type /Pages /Count 2>>\n<</Type /Page>>\n<</Type/Page>>\n"
PHOTO = Attachment("image/png", png(), "photo.png")
PAPER = Attachment("application/pdf", PDF)


@pytest.mark.parametrize(
    ("media_type", "data", "size"),
    [
        ("image/png", png(1000, 1000), 1462),
        ("image/jpeg", jpeg(1000, 1000, b"EXIF" * 100, b"x"), 1462),
        ("image/gif", gif(1000, 1000), 1462),
        ("image/webp", webp(1000, 1000), 1462),
        ("image/png", png(1, 1), LEAST_IMAGE_TOKENS),
        ("image/png", png(20_000, 20_000), MOST_IMAGE_TOKENS),
        ("image/png", png()[:12], MOST_IMAGE_TOKENS),
        ("image/gif", b"GIF87a", MOST_IMAGE_TOKENS),
        ("image/webp", webp(9, 9)[:12], MOST_IMAGE_TOKENS),
        ("image/webp", webp(9, 9)[:20], MOST_IMAGE_TOKENS),
        ("image/jpeg", b"\xff\xd8\xff", MOST_IMAGE_TOKENS),
        ("image/jpeg", b"\xff\xd8\xff\xe0\0\0" + b"\0" * 20, MOST_IMAGE_TOKENS),
        ("image/jpeg", jpeg(9, 9, *[b""] * 1000), MOST_IMAGE_TOKENS),
        ("image/jpeg", jpeg(1000, 1000).replace(b"\xff\xc0", b"\xff\xc4\0\x02\xff\xc0"), 1462),
        ("application/pdf", PDF, 2 * PDF_PAGE_TOKENS),
        ("application/pdf", b"%PDF-" + b"x" * 120_000, 3 * PDF_PAGE_TOKENS),
        ("application/pdf", b"%PDF-" + b"/Type/Page " * 9000, MOST_PAGES * PDF_PAGE_TOKENS),
    ],
)
def test_what_it_takes_of_a_window_is_estimated(media_type: str, data: bytes, size: int) -> None:
    """On the high side; what says nothing about its size is a large one."""
    assert Attachment(media_type, data).tokens == size


@pytest.mark.parametrize(("width", "height", "anthropic", "gemini", "openai"), MEASURED_IMAGES)
def test_no_provider_counts_more(
    width: int, height: int, anthropic: int, gemini: int, openai: int
) -> None:
    """Of what was measured at their newest models, and published, in November of 2026."""
    highest = max(anthropic, gemini, openai)
    estimate = Attachment("image/png", png(width, height)).tokens
    assert highest <= estimate <= 1.3 * highest


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Attachment("image/tiff", b"II*"), "must be one of image/png, .*'image/tiff'"),
        (lambda: Attachment("image/png", b""), "has the media type image/png"),
        (
            lambda: Attachment("image/png", jpeg(1, 1), "a.png"),
            r"a\.png has the media type image/png",
        ),
        (
            lambda: Attachment("image/png", png() + b"\0" * MAX_ATTACHMENT_BYTES),
            "no provider takes more than 33,554,432; make it smaller",
        ),
    ],
)
def test_what_no_model_reads_is_refused(make: Callable[[], Attachment], says: str) -> None:
    """Before it is in any conversation, and with what to do."""
    with pytest.raises(UsageError, match=says):
        make()


def test_a_file_is_loaded_by_what_it_is(tmp_path: Path) -> None:
    """Not by what it is called."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(png())
    assert Attachment.load(path) == Attachment("image/png", png(), "photo.jpg")
    assert Attachment.load(str(path)).kind == "image"
    (tmp_path / "notes.txt").write_text("Hi")
    with open(tmp_path / "large.png", "wb") as file:  # noqa: ASYNC230, PTH123  # it has holes
        file.truncate(3 * MAX_ATTACHMENT_BYTES)
    for name, says in (
        ("notes.txt", "must be a PNG, JPEG, GIF or WebP image, or a PDF"),
        ("large.png", "has more than 33,554,432 bytes, and no provider takes that many; make it"),
        ("gone.png", "cannot be read: No such file"),
        ("a\0b", "cannot be read: "),
    ):
        with pytest.raises(UsageError, match=says):
            Attachment.load(tmp_path / name)


def test_it_survives_what_messages_survive() -> None:
    """Pickling and JSON; and no error or log shows what is in it."""
    messages = (
        UserMessage("What is it?", (PHOTO, PAPER)),
        ToolMessage("1", "look", "[image]", attachments=(PHOTO,)),
    )
    assert pickle.loads(pickle.dumps(messages)) == messages
    assert messages_from_json(messages_to_json(messages)) == messages
    assert repr(PHOTO) == "Attachment('image/png', 29 bytes, 'photo.png')"
    assert repr(PAPER) == f"Attachment('application/pdf', {len(PDF)} bytes)"
    with pytest.raises(UsageError, match="has the media type image/png"):
        messages_from_json('[{"role":"user","text":"x","attachments":[{"media_type":"image/png",'
                           '"data":"AAAA"}]}]')  # fmt: skip


# --- through a pool


@final
class TextOnly(Driver):
    """A model that reads some kinds and no others."""

    def __init__(
        self,
        inner: Driver,
        *kinds: str,
        most_image_bytes: int | None = None,
        most_image_pixels: int | None = None,
    ) -> None:
        """Answer as *inner* does."""
        self.inner = inner
        self.kinds = frozenset(kinds)
        self.most_bytes = most_image_bytes
        self.most_pixels = most_image_pixels

    @property
    def inputs(self) -> frozenset[str]:
        """The kinds."""
        return self.kinds

    @property
    def most_image_bytes(self) -> int | None:
        """The limit."""
        return self.most_bytes

    @property
    def most_image_pixels(self) -> int | None:
        """The limit of a side."""
        return self.most_pixels

    @property
    def context_window(self) -> int | None:
        """As the other's."""
        return self.inner.context_window

    @property
    def privacy(self) -> PrivacyTier:
        """As the other's."""
        return self.inner.privacy

    async def complete(
        self, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Answer as the other does."""
        return await self.inner.complete(request, on_delta=on_delta)


async def test_a_query_goes_with_its_attachments() -> None:
    """To the model, into the outcome, and on into another run."""
    driver = ScriptedDriver(["A cat.", "Black."], context_window=50_000)
    async with open_pool(driver) as pool:
        config = SpawnConfig(manifest(), "What is it?", attachments=(PHOTO,))
        first = await (await pool.spawn(config)).wait()
        config = SpawnConfig(manifest(), "Which colour?", history=first.messages)
        await (await pool.spawn(config)).wait()
    asked = UserMessage("What is it?", (PHOTO,))
    assert [request.messages[0] for request in driver.requests] == [asked, asked]
    assert first.messages[0] == asked


async def test_an_agent_that_never_began_keeps_its_question() -> None:
    """Its outcome is a conversation that can go on."""
    async with open_pool(ScriptedDriver(["x", "y"]), max_concurrent=1) as pool:
        await pool.spawn(SpawnConfig(manifest(), "first"))
        config = SpawnConfig(manifest(), "second", attachments=(PHOTO,))
        handle = await pool.spawn(config)
        handle.cancel("enough")
        assert (await handle.wait()).messages == (UserMessage("second", (PHOTO,)),)


async def test_a_model_that_reads_none_refuses_the_agent() -> None:
    """Nothing has run, and nothing has changed: G5."""
    driver = TextOnly(ScriptedDriver(["Hi", "A page."], context_window=50_000), "pdf")
    shared = manifest()
    async with open_pool(driver) as pool:
        await (await pool.spawn(SpawnConfig(shared, "Hello?"))).wait()
        with pytest.raises(UsageError, match=r"kind 'image', got Attachment\('image/png'"):
            pool.spawn_nowait(SpawnConfig(shared, "What is it?", attachments=(PAPER, PHOTO)))
        handle = pool.spawn_nowait(SpawnConfig(shared, "What is it?", attachments=(PAPER,)))
        assert handle.agent_id == 2
        assert (await handle.wait()).text == "A page."


async def test_an_image_above_the_limit_refuses_the_agent() -> None:
    """At its spawn, and not with its first request."""
    inner = ScriptedDriver(["A page."], context_window=50_000)
    driver = TextOnly(inner, "image", "pdf", most_image_bytes=20)
    async with open_pool(driver) as pool:
        with pytest.raises(UsageError, match=r"photo\.png has 29 bytes, and the provider takes "):
            pool.spawn_nowait(SpawnConfig(manifest(), "?", attachments=(PHOTO,)))
        config = SpawnConfig(manifest(), "?", attachments=(PAPER,))
        assert (await (await pool.spawn(config)).wait()).text == "A page."


async def test_an_image_that_is_too_wide_refuses_the_agent() -> None:
    """Its header says so; nothing is sent."""
    driver = TextOnly(ScriptedDriver([], context_window=50_000), "image", most_image_pixels=7)
    async with open_pool(driver) as pool:
        with pytest.raises(UsageError, match=r"photo\.png has 8 x 8 pixels, .* of at most 7 x 7;"):
            pool.spawn_nowait(SpawnConfig(manifest(), "?", attachments=(PHOTO,)))


async def test_what_an_attachment_takes_is_counted() -> None:
    """A question that does not fit is refused before it is sent."""
    driver = ScriptedDriver(["x"], context_window=4000)
    async with open_pool(driver) as pool:
        config = SpawnConfig(manifest(), "?", attachments=(PAPER,))
        outcome = await (await pool.spawn(config)).wait()
    assert "shorten the query" in str(outcome.error)
    assert not driver.requests


@tool
async def look(context: ToolContext) -> ToolResult:  # noqa: ASYNC124  # as tools are
    """Take a photo."""
    return ToolResult("[image]", attachments=(PHOTO, PAPER))


WIDE_NOTE = (
    "[image]\n[image 'photo.png' left out: it has 8 x 8 pixels, and the provider takes images of "
    "at most 7 x 7; get a smaller one]"
)
LARGE_NOTE = (
    "[image]\n[image 'photo.png' left out: it has 29 bytes, and the provider takes images of at "
    "most 20; get a smaller one]"
)


@pytest.mark.parametrize(
    ("driver", "window", "kept", "note"),
    [
        (lambda inner: inner, 100_000, (PHOTO, PAPER), "[image]"),
        (
            lambda inner: TextOnly(inner, "image"),
            100_000,
            (PHOTO,),
            "[image]\n[1 attachments left out: this model does not read them]",
        ),
        (
            lambda inner: TextOnly(inner, "image", "pdf", most_image_bytes=20),
            100_000,
            (PAPER,),
            LARGE_NOTE,
        ),
        (
            lambda inner: TextOnly(inner, "image", "pdf", most_image_pixels=7),
            100_000,
            (PAPER,),
            WIDE_NOTE,
        ),
        (
            lambda inner: TextOnly(inner, "image", "pdf", most_image_pixels=8),
            100_000,
            (PHOTO, PAPER),
            "[image]",
        ),
        (
            lambda inner: inner,
            10_000,
            (PHOTO,),
            "[image]\n[1 attachments left out: the window has no room]",
        ),
    ],
)
async def test_what_a_tool_returns_goes_to_a_model_that_reads_it(
    driver: Callable[[Driver], Driver], window: int, kept: tuple[Attachment, ...], note: str
) -> None:
    """As far as the window has room; of the rest it is told."""
    inner = ScriptedDriver([calling(tool_call("look")), "A cat."], context_window=window)
    async with open_pool(driver(inner), tools=ToolRegistry([look])) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest(), "Look."))).wait()
    assert outcome.text == "A cat."
    (result,) = results_of(inner.requests[1])
    assert (result.attachments, result.content) == (kept, note)


def test_drivers_of_drivers_read_what_those_read() -> None:
    """Any of a fallback's may be asked; of one that nobody knows it is tried."""
    plain = ScriptedDriver([])
    both, one = TextOnly(plain, "image", "pdf"), TextOnly(plain, "image")
    assert plain.inputs is None
    assert GatedDriver(both, RequestGate("g")).inputs == frozenset({"image", "pdf"})
    assert FallbackDriver(both, one).inputs == frozenset({"image"})
    assert FallbackDriver(both, plain).inputs == frozenset({"image", "pdf"})
    assert FallbackDriver(plain, plain).inputs is None


def test_drivers_of_drivers_take_images_as_large_as_those_take() -> None:
    """The smallest known limit counts."""
    plain = ScriptedDriver([])
    small, large = (TextOnly(plain, "image", most_image_bytes=size) for size in (20, 30))
    assert plain.most_image_bytes is None
    assert GatedDriver(small, RequestGate("g")).most_image_bytes == 20
    assert FallbackDriver(plain, large, small).most_image_bytes == 20
    assert FallbackDriver(plain).most_image_bytes is None
    low, high = (TextOnly(plain, "image", most_image_pixels=most) for most in (20, 30))
    assert plain.most_image_pixels is None
    assert GatedDriver(low, RequestGate("g")).most_image_pixels == 20
    assert FallbackDriver(plain, high, low).most_image_pixels == 20
    assert FallbackDriver(plain).most_image_pixels is None


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a device"])
def test_what_is_no_file_is_neither_read_nor_waited_for(tmp_path: Path, kind: str) -> None:
    """A pipe that nobody writes into stood still, and the agents with it."""
    place = tmp_path / "there"
    match kind:
        case "a pipe":
            os.mkfifo(place)
        case "a folder":
            place.mkdir()
        case _:
            place.symlink_to(os.devnull)
    with pytest.raises(UsageError, match="there' cannot be read: it must be a regular file, not a"):
        Attachment.load(place)


async def test_a_new_picture_each_time_is_no_loop() -> None:
    """Its words are the same: an agent that looks at a screen sees it change."""
    shots = [Attachment("image/png", PHOTO.data + bytes([number])) for number in range(6)]
    seen = iter(shots)

    @tool
    async def shoot() -> ToolResult:  # noqa: ASYNC124  # as tools are
        """Take a photo."""
        return ToolResult("[image]", attachments=(next(seen),))

    turns = [calling(tool_call("shoot", f"id-{number}")) for number in range(6)]
    async with open_pool(ScriptedDriver([*turns, "Done."]), tools=ToolRegistry([shoot])) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest(), "Watch."))).wait()
    assert outcome.text == "Done.", outcome.error
    told = [one for one in outcome.messages if isinstance(one, ToolMessage)]
    assert [one.attachments for one in told] == [(one,) for one in shots]


async def test_the_same_picture_each_time_is_a_loop() -> None:
    """As the same words are: told once more to do something else, and stopped."""
    turns = [calling(tool_call("look", f"id-{number}")) for number in range(6)]
    async with open_pool(ScriptedDriver([*turns, "Done."]), tools=ToolRegistry([look])) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest(), "Watch."))).wait()
    assert outcome.stop_reason is StopReason.STUCK


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the model cannot read attachments of kind 'image', got"),
        (
            'name = "reader"',
            "the model of manifest 'reader' cannot read attachments of kind 'image', got",
        ),
        (
            'privacy = "Standard"\n[model]\nremote_model = "gpt-5"',
            (
                "the model gpt-5 cannot read attachments of kind 'image', got "
                "Attachment('image/png', 29 bytes, 'photo.png'); leave it out, choose a model "
                'that reads it, or, if this one does, write inputs = ["image"] in [model]'
            ),
        ),
    ],
)
async def test_a_refusal_names_the_model_and_what_to_write(text: str, says: str) -> None:
    """And no manifest where none was given."""
    driver = TextOnly(ScriptedDriver(["Hi"], context_window=50_000), "pdf")
    config = SpawnConfig(AgentManifest.parse(text), "What is it?", attachments=(PHOTO,))
    async with open_pool(driver) as pool:
        with pytest.raises(UsageError) as caught:
            pool.spawn_nowait(config)
    assert says in str(caught.value)
