"""A service that takes goals apart: decomposer.py <nats url>.

Each request is {"goal", "type", "max_depth", "limits": {"max_tasks", "max_bytes", "timeout_ms"}}; `type` is simple, microservices,
data_pipeline, ml_pipeline or null. The answer is a graph, as `workflow.start` takes one: {"tasks": [{"id", "description",
"depends_on"?, "parent"?, "step"?}]}. An answer with the header Nats-Service-Error-Code says why there is none: 4xx is the goal's
fault (`invalid_goal`), everything else may pass.

A worker asks it where its configuration says so: TANDEM__WORKFLOW__DECOMPOSER__SUBJECT=goals.decompose
"""

import asyncio
import json
import re
import sys

import nats

TASKS = {"endpoint": "Create a REST API for {name}", "table": "Create a PostgreSQL table for {name} with name text"}


def decompose(asked):
    names = re.findall(r"\b(\w+) service", asked["goal"])
    if not names:
        raise ValueError("it names no service")
    grouped = asked["max_depth"] >= 2
    tasks = []
    for name in dict.fromkeys(names):
        if grouped:
            tasks.append({"id": name, "description": f"The {name} service"})
        for kind, words in TASKS.items():
            task = {"id": f"{name}.{kind}", "description": words.format(name=name + "s")}
            task["step"] = {"kind": "agent", "language": "sql" if kind == "table" else "rust"}
            if grouped:
                task["parent"] = name
            if kind == "endpoint":
                task["depends_on"] = [f"{name}.table"]
            tasks.append(task)
    return {"tasks": tasks}


async def main(url):
    client = await nats.connect(url)

    async def answer(message):
        try:
            await message.respond(json.dumps(decompose(json.loads(message.data))).encode())
        except ValueError as error:
            headers = {"Nats-Service-Error-Code": "422", "Nats-Service-Error": str(error)}
            await client.publish(message.reply, b"", headers=headers)

    # A queue group: start as many of this program as you like.
    await client.subscribe("goals.decompose", queue="goals", cb=answer)
    await client.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
