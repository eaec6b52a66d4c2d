#!/usr/bin/env python3
"""Writes tests/data/usage.jsonl: what providers count, and what that costs by their price lists, in whole nano-dollars.

It shares nothing with the program that it judges: the prices below were typed from the price lists that genai-prices 0.2.1
is made of, the rules are the providers' own, and all arithmetic is in integers. `--check` compares instead of writing.
The objects have the shapes that the providers document; the numbers are drawn, with the edges among them.
"""

import json
import random
import sys
from pathlib import Path

FILE = Path(__file__).with_suffix(".jsonl")
MAR_1, APR_1 = 1772323200000, 1775001600000  # 2026
MAY_1_25, DEC_1_25 = 1746057600000, 1764547200000

# Nano-dollars for a million tokens: input, read from the cache, written to it, for an hour, output. A second row holds for
# calls whose whole input is above `above`.
def row(i, r, w, h, o):
    return {"input": i, "read": r, "write": w, "hour": h, "output": o}

M = 1_000_000  # a thousandth of a dollar
PRICES = {
    # Anthropic
    "anthropic/claude-sonnet-4-5": [row(3000 * M, 300 * M, 3750 * M, 6000 * M, 15000 * M), 200_000,
                                    row(6000 * M, 600 * M, 7500 * M, 12000 * M, 22500 * M)],
    "anthropic/claude-haiku-4-5": [row(1000 * M, 100 * M, 1250 * M, 2000 * M, 5000 * M)],
    "anthropic/claude-opus-4-1": [row(15000 * M, 1500 * M, 18750 * M, 30000 * M, 75000 * M)],
    "anthropic/claude-opus-4-5": [row(5000 * M, 500 * M, 6250 * M, 10000 * M, 25000 * M)],
    # Its long input became as cheap as the rest on 2026-03-13.
    "anthropic/claude-sonnet-4-6@before": [row(3000 * M, 300 * M, 3750 * M, 6000 * M, 15000 * M), 200_000,
                                           row(6000 * M, 600 * M, 7500 * M, 12000 * M, 22500 * M)],
    "anthropic/claude-sonnet-4-6@after": [row(3000 * M, 300 * M, 3750 * M, 6000 * M, 15000 * M)],
    # OpenAI: what is written to its cache costs what input costs.
    "openai/gpt-5-mini": [row(250 * M, 25 * M, 250 * M, 250 * M, 2000 * M)],
    "openai/gpt-5": [row(1250 * M, 125 * M, 1250 * M, 1250 * M, 10000 * M)],
    "openai/gpt-4o": [row(2500 * M, 1250 * M, 2500 * M, 2500 * M, 10000 * M)],
    "openai/gpt-4o-mini": [row(150 * M, 75 * M, 150 * M, 150 * M, 600 * M)],
    "openai/o4-mini": [row(1100 * M, 275 * M, 1100 * M, 1100 * M, 4400 * M)],
    # Four fifths cheaper from 2025-06-10 on.
    "openai/o3@before": [row(10000 * M, 500 * M, 10000 * M, 10000 * M, 40000 * M)],
    "openai/o3@after": [row(2000 * M, 500 * M, 2000 * M, 2000 * M, 8000 * M)],
    "openai/gpt-5.4": [row(2500 * M, 250 * M, 2500 * M, 2500 * M, 15000 * M), 272_000,
                       row(5000 * M, 500 * M, 5000 * M, 5000 * M, 22500 * M)],
    # Google
    "google/gemini-2.5-pro": [row(1250 * M, 125 * M, 1250 * M, 1250 * M, 10000 * M), 200_000,
                              row(2500 * M, 250 * M, 2500 * M, 2500 * M, 15000 * M)],
    "google/gemini-2.5-flash": [row(300 * M, 30 * M, 300 * M, 300 * M, 2500 * M)],
    "google/gemini-2.5-flash-lite": [row(100 * M, 10 * M, 100 * M, 100 * M, 400 * M)],
    "google/gemini-3-pro-preview": [row(2000 * M, 200 * M, 2000 * M, 2000 * M, 12000 * M), 200_000,
                                    row(4000 * M, 400 * M, 4000 * M, 4000 * M, 18000 * M)],
    "google/gemini-1.5-flash": [row(75 * M, 18 * M + 750_000, 75 * M, 75 * M, 300 * M), 128_000,
                                row(150 * M, 37 * M + 500_000, 150 * M, 150 * M, 600 * M)],
}
DATES = {"@before": {"anthropic": MAR_1, "openai": MAY_1_25}, "@after": {"anthropic": APR_1, "openai": DEC_1_25}}


def cost(name, whole, plain, read, write, hour, output):
    """Rounded once, to the nearest nano-dollar."""
    prices = PRICES[name]
    p = prices[2] if len(prices) == 3 and whole > prices[1] else prices[0]
    total = plain * p["input"] + read * p["read"] + write * p["write"] + hour * p["hour"] + output * p["output"]
    return (total + 500_000) // 1_000_000


def anthropic(name, usage):
    """Counts what went through the cache beside the input, and thoughts inside the output."""
    read, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    hour = (usage.get("cache_creation") or {}).get("ephemeral_1h_input_tokens") or 0
    plain = usage["input_tokens"]
    return cost(name, plain + read + written, plain, read, written - hour, hour, usage["output_tokens"])


def openai(name, usage):
    """Counts what came from the cache inside the input, and thoughts inside the output."""
    details = usage.get("prompt_tokens_details") or {}
    read, write = details.get("cached_tokens") or 0, details.get("cache_write_tokens") or 0
    whole = usage["prompt_tokens"]
    return cost(name, whole, whole - read - write, read, write, 0, usage["completion_tokens"])


def google(name, usage):
    """Counts what came from the cache inside the input, what tools brought beside it, and thoughts beside the answer."""
    whole = usage["promptTokenCount"] + (usage.get("toolUsePromptTokenCount") or 0)
    read = usage.get("cachedContentTokenCount") or 0
    output = (usage.get("candidatesTokenCount") or 0) + (usage.get("thoughtsTokenCount") or 0)
    return cost(name, whole, whole - read, read, 0, 0, output)


def shapes_anthropic(n):
    i, o, r, w = n(), n(), n(), n()
    hour = random.randint(0, w)
    yield "plain", {"input_tokens": i, "output_tokens": o}
    yield "nothing cached", {"input_tokens": i, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                             "output_tokens": o, "service_tier": "standard"}
    yield "cache null", {"input_tokens": i, "cache_creation_input_tokens": None, "cache_read_input_tokens": None,
                         "cache_creation": None, "output_tokens": o}
    yield "read from the cache", {"input_tokens": i, "cache_creation_input_tokens": 0, "cache_read_input_tokens": r,
                                  "output_tokens": o}
    yield "written, without saying for how long", {"input_tokens": i, "cache_creation_input_tokens": w,
                                                   "cache_read_input_tokens": r, "output_tokens": o}
    yield "written for five minutes and for an hour", {
        "input_tokens": i, "cache_creation_input_tokens": w, "cache_read_input_tokens": r,
        "cache_creation": {"ephemeral_5m_input_tokens": w - hour, "ephemeral_1h_input_tokens": hour},
        "output_tokens": o, "service_tier": "standard", "inference_geo": "not_available"}
    yield "written for an hour, with thoughts", {
        "input_tokens": i, "cache_creation_input_tokens": w, "cache_read_input_tokens": r,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": w},
        "output_tokens": o, "output_tokens_details": {"thinking_tokens": random.randint(0, o)},
        "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0}}


def shapes_openai(n):
    i, o = n(), n()
    read, thought = random.randint(0, i), random.randint(0, o)
    total = {"total_tokens": i + o}
    yield "plain", {"prompt_tokens": i, "completion_tokens": o, **total}
    yield "details null", {"prompt_tokens": i, "completion_tokens": o, **total, "prompt_tokens_details": None,
                           "completion_tokens_details": None}
    yield "nothing cached, no thoughts", {
        "prompt_tokens": i, "completion_tokens": o, **total,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0,
                                      "rejected_prediction_tokens": 0}}
    yield "cached", {"prompt_tokens": i, "completion_tokens": o, **total, "prompt_tokens_details": {"cached_tokens": read}}
    yield "cached, with thoughts", {
        "prompt_tokens": i, "completion_tokens": o, **total, "prompt_tokens_details": {"cached_tokens": read},
        "completion_tokens_details": {"reasoning_tokens": thought}}
    yield "all cached, all thoughts", {
        "prompt_tokens": i, "completion_tokens": o, **total, "prompt_tokens_details": {"cached_tokens": i},
        "completion_tokens_details": {"reasoning_tokens": o}}
    yield "written to the cache", {
        "prompt_tokens": i, "completion_tokens": o, **total,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": random.randint(0, i - read)},
        "completion_tokens_details": {"reasoning_tokens": thought}}


def shapes_google(n):
    i, o, t = n(), n(), n()
    read = random.randint(0, i)
    yield "plain", {"promptTokenCount": i, "candidatesTokenCount": o, "totalTokenCount": i + o}
    yield "thoughts", {"promptTokenCount": i, "candidatesTokenCount": o, "thoughtsTokenCount": t,
                       "totalTokenCount": i + o + t}
    yield "cached, with thoughts", {
        "promptTokenCount": i, "cachedContentTokenCount": read, "candidatesTokenCount": o, "thoughtsTokenCount": t,
        "totalTokenCount": i + o + t, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": i}],
        "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": read}]}
    yield "all cached", {"promptTokenCount": i, "cachedContentTokenCount": i, "candidatesTokenCount": o,
                         "totalTokenCount": i + o}
    yield "with what tools brought", {
        "promptTokenCount": i, "toolUsePromptTokenCount": read, "candidatesTokenCount": o, "thoughtsTokenCount": t,
        "totalTokenCount": i + read + o + t}


FORMATS = {"anthropic": (shapes_anthropic, anthropic), "openai": (shapes_openai, openai), "google": (shapes_google, google)}


def records():
    random.seed(5)
    for name in PRICES:
        provider = name.split("/")[0]
        shapes, price = FORMATS[provider]
        model, _, when = name.partition("@")
        at = DATES["@" + when][provider] if when else DEC_1_25 if model != "openai/gpt-5.4" else APR_1
        limits = PRICES[name][1:2]
        sizes = {"small": lambda: random.randint(1, 50), "usual": lambda: random.randint(100, 20_000)}
        if limits:
            sizes["long"] = lambda: random.randint(limits[0], limits[0] + 100_000)
        for size, n in sizes.items():
            for shape, usage in shapes(n):
                yield {"model": model, "at_ms": at, "note": f"{size}: {shape}", "usage": usage,
                       "nanodollars": price(name, usage)}
        # On both sides of the edge, and nothing at all.
        for whole in [edge + one for edge in limits for one in (0, 1)]:
            usage = {"anthropic": {"input_tokens": 7, "cache_read_input_tokens": whole - 7, "output_tokens": 11},
                     "openai": {"prompt_tokens": whole, "completion_tokens": 11,
                                "prompt_tokens_details": {"cached_tokens": whole - 7}},
                     "google": {"promptTokenCount": whole, "cachedContentTokenCount": whole - 7,
                                "candidatesTokenCount": 11}}[provider]
            yield {"model": model, "at_ms": at, "note": f"{whole} tokens of input", "usage": usage,
                   "nanodollars": price(name, usage)}
        usage = {"anthropic": {"input_tokens": 0, "output_tokens": 0},
                 "openai": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
                 "google": {"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0}}[provider]
        yield {"model": model, "at_ms": at, "note": "nothing", "usage": usage, "nanodollars": 0}


text = "".join(json.dumps(record) + "\n" for record in records())
if "--check" in sys.argv:
    sys.exit(0 if FILE.read_text() == text else f"{FILE.name} is not what this script writes")
FILE.write_text(text)
