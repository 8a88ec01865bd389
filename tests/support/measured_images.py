"""What images took at the newest models, measured and published in November of 2026."""

from __future__ import annotations

MEASURED_IMAGES = [
    (256, 256, 177, 1_090, 77),
    (512, 512, 438, 1_090, 308),
    (768, 768, 861, 1_090, 692),
    (1024, 1024, 1_446, 1_090, 1_229),
    (1280, 720, 1_273, 1_101, 1_104),
    (1920, 1080, 2_768, 1_101, 2_448),
    (2560, 1440, 3_069, 1_101, 4_320),
    (3840, 2160, 3_069, 1_101, 9_792),
    (4032, 3024, 4_005, 1_065, 14_364),
]
"""Width and height in pixels; tokens at Anthropic, Gemini and OpenAI."""
