"""What a provider's refusal means."""

from __future__ import annotations

import json

import pytest

from agentpool import DriverError
from agentpool.drivers import (
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    NetworkError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    UnknownModelError,
)
from agentpool.drivers.wire._error_body import ErrorBody
from agentpool.drivers.wire._failure import (
    MAX_SHOWN_CHARS,
    failure_from_response,
    failure_in_stream,
    shown,
)
from agentpool.drivers.wire._retry_after import retry_after_seconds
from tests.support.keys import KEY

PLACEHOLDER = "test"


def error(message: str = "why", **fields: object) -> bytes:
    """Return an error's body as providers write it."""
    return json.dumps({"error": {"message": message, **fields}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable"),
    [
        (400, error(), BadRequestError, False),
        (400, error(code="context_length_exceeded"), ContextOverflowError, False),
        (
            400,
            error(code=400, type="exceed_context_size_error", n_prompt_tokens=9, n_ctx=8),
            ContextOverflowError,
            False,
        ),
        (400, error("prompt is too long: 9 > 8"), ContextOverflowError, False),
        (400, error(code="model_not_found"), UnknownModelError, False),
        (401, error(type="authentication_error"), AuthenticationError, False),
        (402, b"", AuthenticationError, False),
        (403, b"", AuthenticationError, False),
        (404, error("the model `x` does not exist"), UnknownModelError, False),
        (404, error("File Not Found", type="not_found_error"), BadRequestError, False),
        (405, b"", BadRequestError, False),
        (407, b"", AuthenticationError, False),
        (408, b"", NetworkError, True),
        (409, b"", OverloadedError, True),
        (400, error("Credit balance is too low"), AuthenticationError, False),
        (413, b"", ContextOverflowError, False),
        (418, b"", BadRequestError, False),
        (422, error("prompt is too long"), ContextOverflowError, False),
        (422, b"", BadRequestError, False),
        (425, b"", OverloadedError, True),
        (429, error(type="rate_limit_error"), RateLimitError, True),
        (429, error(code="insufficient_quota"), RateLimitError, False),
        (500, error(type="server_error"), OverloadedError, True),
        (501, error(type="not_supported_error"), BadRequestError, False),
        (502, b"<html>bad gateway</html>", NetworkError, True),
        (503, error(type="unavailable_error"), OverloadedError, True),
        (504, b"", NetworkError, True),
        (505, b"", BadRequestError, False),
        (529, error(type="overloaded_error"), OverloadedError, True),
        (599, b"", OverloadedError, True),
        (204, b"", ProtocolError, False),
        (301, b"", BadRequestError, False),
    ],
)
def test_every_status_has_its_error(
    status: int, body: bytes, kind: type[DriverError], *, retryable: bool
) -> None:
    """A 401 that is tried four times, as in the original, is three too many."""
    failure = failure_from_response(status, {}, body)
    assert type(failure) is kind
    assert failure.retryable is retryable
    assert failure.status_code == status
    assert str(status) in str(failure)


def test_no_status_goes_without() -> None:
    """Any number at all comes to one of ours, and only the server's faults are retried."""
    for status in range(100, 1000):
        failure = failure_from_response(status, {}, b"")
        assert isinstance(failure, DriverError)
        if failure.retryable:
            assert status in {408, 409, 425, 429, 498} or status >= 500


@pytest.mark.parametrize(("wish", "expected"), [("true", True), ("false", False), ("?", True)])
def test_the_provider_may_say_whether_to_retry(wish: str, *, expected: bool) -> None:
    """It knows best. Anything but true and false is not a word of it."""
    assert failure_from_response(500, {"x-should-retry": wish}, b"").retryable is expected
    assert failure_from_response(400, {"x-should-retry": "true"}, b"").retryable


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (error("why", type="t", code="c"), "why (c, t)"),
        (b'{"error":{"type":"t"}}', "t"),
        (b'{"error":{}}', "no explanation"),
        (b'{"error":"just text"}', "just text"),
        (b'{"message":"top level"}', "top level"),
        (b'{"detail":"of FastAPI"}', "of FastAPI"),
        (b'{"other":1}', '{"other":1}'),
        (b"<html>\n <b>no</b>", "<html> <b>no</b>"),
        (b"[1]", "[1]"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"", "no explanation"),
    ],
)
def test_what_the_provider_says_is_shown(body: bytes, says: str) -> None:
    """Whatever form it has."""
    assert str(failure_from_response(500, {}, body)) == f"the provider answered 500: {says}"


def test_a_redirect_says_where_to() -> None:
    """Followed, the key would go to another host."""
    failure = failure_from_response(304, {}, b"")
    assert "answered 304: this is neither an answer nor a redirect to a location" in str(failure)
    failure = failure_from_response(302, {"location": "https://evil.example/"}, b"")
    assert "https://evil.example/" in str(failure)
    assert "base_url" in str(failure)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "-1"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, 86_400.0),
        ({"retry-after": "soon"}, None),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT",
                "date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            30.0,
        ),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:00 GMT",
                "date": "Wed, 21 Oct 2026 07:28:30 GMT",
            },
            0.0,
        ),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        ({"retry-after": "1m30s"}, 90.0),
        ({"retry-after": "37, 40"}, 40.0),
        ({"retry-after": "37, soon"}, None),
        ({"retry-after-ms": "500,250"}, 0.5),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        (
            {
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-tokens": "6m0s",
                "x-ratelimit-remaining-tokens": "5",
            },
            1.0,
        ),
        ({"x-ratelimit-reset": "1795687230", "date": "Thu, 26 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"x-ratelimit-reset": "1795687230000"}, None),
        ({"anthropic-ratelimit-requests-reset": "2026-11-26T10:00:20Z"}, None),
        ({"anthropic-ratelimit-requests-reset": "soon"}, None),
        ({"x-ratelimit-reset-tokens": "", "retry-after": ""}, None),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT",
                "date": "Wed, 21 Oct 2026 07:28:00 -0000",
            },
            None,
        ),
    ],
)
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    """Seconds, milliseconds or a date; the original waited what it liked."""
    assert retry_after_seconds(headers) == expected
    assert failure_from_response(429, headers, b"").retry_after_seconds == expected


@pytest.mark.parametrize(
    ("body", "kind", "retryable"),
    [
        (ErrorBody(type="FieldMissingError"), BadRequestError, False),
        (ErrorBody("prompt is too long", type="odd"), None, None),
        (ErrorBody(code="x", details=[{"retryDelay": 3}]), OverloadedError, True),
        (ErrorBody(type="invalid_request_error", code="context_length_exceeded"), None, None),
        (ErrorBody(code=401), AuthenticationError, False),
        (ErrorBody(type="rate_limit_error"), RateLimitError, True),
        (ErrorBody(type="timeout_error"), NetworkError, True),
        (ErrorBody(type="never heard of"), OverloadedError, True),
        ("text", OverloadedError, True),
        (ErrorBody(), OverloadedError, True),
    ],
)
def test_errors_inside_a_stream(
    body: ErrorBody | str, kind: type[DriverError] | None, *, retryable: bool | None
) -> None:
    """By code or type; what nobody knows is the provider's own trouble."""
    failure = failure_in_stream(body)
    assert type(failure) is (kind or ContextOverflowError)
    assert failure.retryable is bool(retryable)
    assert failure.status_code is None


def test_keys_are_redacted() -> None:
    """Some servers quote the key that they refuse. Short ones are placeholders."""
    body = error(f"wrong key {KEY}")
    assert "sk-" not in str(failure_from_response(401, {}, body, secret=KEY))
    assert "sk-" not in str(failure_in_stream(f"bad {KEY}", secret=KEY))
    assert shown("the latest test", secret=PLACEHOLDER) == "the latest test"


def test_long_texts_are_cut() -> None:
    """And say how long they were; the key goes before the cut."""
    text = shown("a" * (MAX_SHOWN_CHARS - 4) + KEY + "b" * 99, secret=KEY)
    assert "sk-" not in text
    assert len(text) < MAX_SHOWN_CHARS + 30
    assert text.endswith("characters)")


def test_the_first_wait_that_is_one_counts() -> None:
    """Of several that a text has."""
    assert retry_after_seconds({}, "retry in a moment; try again in 2 minutes 3 secs") == 123.0
    assert retry_after_seconds({}, "wait for it, then retry in a while") is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Too many requests, wait 2 minutes.", 120.0),
        ("You must wait at least 30 seconds", 30.0),
        ("Please wait 5s before the next one", 5.0),
        ("wait up to 1m30s", 90.0),
        ("wait and see", None),
        ("await 5s", None),
    ],
)
def test_a_wait_in_words(said: str, expected: float | None) -> None:
    """In words that people use, without "in" or "for"."""
    assert failure_from_response(429, {}, error(said)).retry_after_seconds == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"retry_after": 3}, 3.0),
        ({"retry_after_seconds": 4.5}, 4.5),
        ({"retryAfter": "5"}, 5.0),
        ({"retryAfter": "1m30s"}, 90.0),
        ({"retry_after_ms": 1500}, 1.5),
        ({"retry_after": "soon", "retry_after_seconds": 6}, 6.0),
        ({"retry_after": True}, None),
        ({"retry_after": None}, None),
    ],
)
def test_a_wait_in_a_field(fields: dict[str, object], expected: float | None) -> None:
    """In the error, beside it, or where there is no error but a message."""
    beside = {"error": {"message": "slow down"}, **fields}
    for body in ({"error": {"message": "slow down", **fields}}, beside, {"detail": "x", **fields}):
        failure = failure_from_response(429, {}, json.dumps(body).encode())
        assert failure.retry_after_seconds == expected
    both = {"error": {"message": "slow down", "retry_after": 1}, "retryAfter": 9}
    assert failure_from_response(429, {}, json.dumps(both).encode()).retry_after_seconds == 1


LOW = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing"


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (401, error("Incorrect API key"), "check that the key is one of this provider, and"),
        (403, error("no access", type="permission_error"), "that it may use the model"),
        (402, error("Insufficient Balance"), "look at the balance and the limits of the account"),
        (429, error("quota", code="insufficient_quota"), "look at the balance and the limits"),
        (400, error("credit", type="billing_error"), None),
        (400, error(LOW, type="invalid_request_error"), "look at the balance and the limits of"),
        (404, error("model 'x' not found"), "check the name in model.remote_model, and that the"),
        (404, error("Not Found"), "check the path of model.base_url, and model.api"),
        (429, error("slow down"), None),
        (500, error("oops"), None),
    ],
)
def test_what_to_do_stands_behind_what_came(status: int, body: bytes, says: str | None) -> None:
    """Where asking again would not help."""
    failure = failure_from_response(status, {}, body)
    assert ("; check" in str(failure) or "; look" in str(failure)) is (says is not None)
    assert (says or "") in str(failure)


def test_what_to_do_stands_in_a_stream_as_well() -> None:
    """Some servers refuse a request with 200."""
    assert str(failure_in_stream(ErrorBody("no such key", code=401))) == (
        "the provider broke off its answer: no such key; check that the key is one of this "
        "provider, and that it may use the model"
    )
    unpaid = failure_in_stream(ErrorBody("pay", type="billing_error"))
    assert str(unpaid).endswith("; look at the balance and the limits of the account")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "The decoder prompt (length 8357) is longer than the maximum model length of 8192."),
        (400, "prompt token count of 93854 exceeds the limit of 90000"),
        (400, "You passed 12289 input tokens. However, the model's context length is only 16384"),
        (400, "The prompt (total length 9) is too long to fit into the model (context length 8)."),
        (500, "Context size has been exceeded."),
        (500, "context shift is disabled"),
        (500, "Input prompt is too big compared to KV size. Please try increasing KV size."),
        (400, "the request exceeds the available context size, try increasing it"),
    ],
)  # fmt: skip
def test_the_words_of_local_servers_for_a_full_window(status: int, said: str) -> None:
    """Of vLLM and llama.cpp, whose status may be that of a broken server."""
    assert type(failure_from_response(status, {}, error(said))) is ContextOverflowError
    assert type(failure_in_stream(ErrorBody(said, code=500))) is ContextOverflowError


def test_a_router_writes_headers_into_its_body() -> None:
    """The moment counts from the answer's own date; a real header goes first."""
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1700000037000"}
    error = {"message": "Rate limit exceeded", "code": 429, "metadata": {"headers": headers}}
    body = json.dumps({"error": error}).encode()
    date = {"date": "Tue, 14 Nov 2023 22:13:20 GMT"}
    assert failure_from_response(429, date, body).retry_after_seconds == 37
    sooner = {**date, "retry-after": "2"}
    assert failure_from_response(429, sooner, body).retry_after_seconds == 2


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, error("Model Not Exist", type="invalid_request_error")),
        (400, error("Unknown Model, please check the model code.", code="1211")),
        (400, error("[1211][模型不存在][x]", code="1211")),
        (400, error("modelCode: does not exist", code="1214")),
        (400, error("Unknown model: x", code="unknown_model")),
        (404, error("No endpoints found for acme/none.", code=404)),
        (404, b'{"status":404,"detail":"Function \'x\': Not found for account \'y\'"}'),
        (410, b'{"status":410,"detail":"The model \'x\' has reached its end of life"}'),
        (410, error("model x is no longer served")),
    ],
)
def test_an_unknown_model_is_one_in_the_words_of_every_provider(status: int, body: bytes) -> None:
    """Of DeepSeek, Z.AI, Azure, OpenRouter and NVIDIA: they say it with the status of anything."""
    failure = failure_from_response(status, {}, body)
    assert isinstance(failure, UnknownModelError)
    assert not failure.retryable
    assert "; check the name in model.remote_model, and that" in str(failure)


def test_a_model_that_takes_no_tools_has_no_wrong_address() -> None:
    """OpenRouter answers 404 to what none of its providers can do."""
    body = error("No endpoints found that support tool use.", code=404)
    failure = failure_from_response(404, {}, body)
    assert isinstance(failure, BadRequestError)
    assert str(failure).endswith("; choose another model in model.remote_model, or ask for less")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ErrorBody("oops", type="server_error"), "; ask again later"),
        (ErrorBody("slow down", type="rate_limit_error"), "; ask again later"),
        (ErrorBody("bad prompt", type="BadRequestError", code=400), "; change the request"),
    ],
)
def test_who_breaks_off_is_followed_by_what_to_do(error: ErrorBody, says: str) -> None:
    """A part of the answer may have been shown, so nobody asks again unasked."""
    assert str(failure_in_stream(error)).endswith(says)
