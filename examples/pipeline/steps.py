#!/usr/bin/env python3
"""Steps of the workflow "Optimize our data processing pipeline", as a service of your own on NATS.

  pip install nats-py
  python steps.py [nats://127.0.0.1:4222]

A step is a subject. Tandem asks on it with {"task", "description", "inputs"}, where `inputs` has what the tasks that it depends on
have given, by their ids; the reply is the step's output, as JSON. Whoever raises an error answers with the headers of a NATS
service error, and the task is tried again as its policy says. The header Idempotency-Key is the same whenever the same step of the
same workflow is asked for again: here what was done is kept under it for a while; a real effect would write it in the same transaction.
"""

import asyncio
import csv
import io
import json
import os
import random
import re
import signal
import sys
import time
from collections import OrderedDict

import nats

ROWS = int(os.environ.get("ROWS", "20000"))


def sample():
    """The same table every time."""
    chance = random.Random(7)
    lines = ["customer,country,total"]
    for n in range(ROWS):
        lines.append(f" customer-{chance.randrange(500)} ,{chance.choice(['de', 'FR', 'Es'])},{chance.randrange(1, 99_999) / 100}€")
    return "\n".join(lines)


# The pipeline as it is, and a better way for each stage.


def parse(text):
    return list(csv.DictReader(io.StringIO(text)))


def clean(rows):
    return [
        {"customer": row["customer"].strip(), "country": row["country"].upper(), "cents": round(float(re.sub("[^0-9.]", "", row["total"])) * 100)}
        for row in rows
    ]


def total(rows):
    totals = []
    for row in rows:
        for known in totals:
            if known[0] == row["customer"]:
                known[1] += row["cents"]
                break
        else:
            totals.append([row["customer"], row["cents"]])
    return dict(totals)


def parse_by_position(text):
    reader = csv.reader(io.StringIO(text))
    names = next(reader)
    return [dict(zip(names, row)) for row in reader]


def clean_without_a_pattern(rows):
    return [
        {"customer": row["customer"].strip(), "country": row["country"].upper(), "cents": round(float(row["total"].rstrip("€")) * 100)}
        for row in rows
    ]


def total_by_key(rows):
    totals = {}
    for row in rows:
        totals[row["customer"]] = totals.get(row["customer"], 0) + row["cents"]
    return totals


STAGES = {"parse": parse, "clean": clean, "total": total}
BETTER = {
    "parse": (parse_by_position, "read rows by position"),
    "clean": (clean_without_a_pattern, "strip one sign instead of searching with a pattern"),
    "total": (total_by_key, "look totals up by key instead of walking through them"),
}


def timed(stages):
    """What the stages make of the sample, and the milliseconds of each."""
    value, times = sample(), {}
    for name, stage in stages.items():
        begun = time.perf_counter()
        value = stage(value)
        times[name] = round((time.perf_counter() - begun) * 1000, 2)
    return value, times


# The steps.


def profile(inputs):
    return {"rows": ROWS, "milliseconds": timed(STAGES)[1]}


def bottlenecks(inputs):
    times = inputs["profile_pipeline"]["milliseconds"]
    whole = sum(times.values())
    slow = sorted(times, key=times.get, reverse=True)
    return {"stages": [{"stage": stage, "share": round(times[stage] / whole, 3)} for stage in slow]}


def design(inputs):
    worth = [found["stage"] for found in inputs["identify_bottlenecks"]["stages"] if found["share"] >= 0.2]
    return {"changes": [{"stage": stage, "change": BETTER[stage][1]} for stage in worth]}


def implement(inputs):
    changed = {change["stage"] for change in inputs["design_improvements"]["changes"]}
    return {"pipeline": {stage: BETTER[stage][0].__name__ if stage in changed else STAGES[stage].__name__ for stage in STAGES}}


def benchmark(inputs):
    functions = {function.__name__: function for function in [*STAGES.values(), *(better for better, _ in BETTER.values())]}
    after = {stage: functions[name] for stage, name in inputs["implement_changes"]["pipeline"].items()}
    (expected, before_times), (made, after_times) = timed(STAGES), timed(after)
    if made != expected:
        raise ValueError("the improved pipeline makes something else")
    before, after = sum(before_times.values()), sum(after_times.values())
    return {"before_ms": round(before, 2), "after_ms": round(after, 2), "times_faster": round(before / after, 2)}


def document(inputs):
    found = inputs["benchmark"]
    return {"markdown": f"# The pipeline\n\n{ROWS} rows: {found['before_ms']} ms before, {found['after_ms']} ms after, {found['times_faster']} times as fast.\n"}


STEPS = {
    "steps.pipeline.profile": profile,
    "steps.pipeline.bottlenecks": bottlenecks,
    "steps.pipeline.design": design,
    "steps.pipeline.implement": implement,
    "steps.pipeline.benchmark": benchmark,
    "steps.pipeline.document": document,
}


async def main():
    url = sys.argv[1] if len(sys.argv) > 1 else "nats://127.0.0.1:4222"
    client = await nats.connect(url)
    done = OrderedDict()

    async def serve(message):
        key = (message.headers or {}).get("Idempotency-Key")
        try:
            if key not in done:
                inputs = json.loads(message.data)["inputs"]
                output = await asyncio.to_thread(STEPS[message.subject], inputs)
                done[key] = json.dumps(output).encode()
                if len(done) > 1_000:
                    done.popitem(last=False)
            await message.respond(done[key])
        except Exception as problem:
            headers = {"Nats-Service-Error-Code": "500", "Nats-Service-Error": f"{type(problem).__name__}: {problem}"[:500].replace("\n", " ")}
            await client.publish(message.reply, b"{}", headers=headers)

    for subject in STEPS:
        # One queue: start as many of these as you need.
        await client.subscribe(subject, queue="pipeline-steps", cb=serve)
    await client.flush()
    print("ready", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await client.drain()


asyncio.run(main())
