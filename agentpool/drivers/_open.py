"""From a manifest's ``[model]`` to a driver."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Final

from agentpool._capability import PrivacyTier
from agentpool._errors import AuthenticationError, PrivacyError, UsageError
from agentpool._manifest import ModelConfig, is_loopback_url
from agentpool.abc import Driver
from agentpool.drivers._local import DEFAULT_CONTEXT_WINDOW, open_local
from agentpool.drivers._local_weights import find_cached_weights
from agentpool.drivers._openai import OPENAI_BASE_URL, open_openai
from agentpool.drivers.wire._openai_chat import DONE as DONE
