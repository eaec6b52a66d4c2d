"""A service whose subjects are steps of workflows: steps.py <nats url>.

Each request is {"task", "description", "inputs": {dependency: output}}. The answer is JSON: the step's output. An answer with the
header Nats-Service-Error-Code is a failure: 4xx is not tried again, everything else is. The header Idempotency-Key is the same
for every attempt at the same step: what was done under it is not done again.

A worker asks only what its configuration allows: TANDEM__WORKFLOW__STEP_SUBJECTS=orders.*
"""

import asyncio
import json
import sys

import nats

done = {}  # A real service keeps this where its effects are.


async def reserve(order):
    return {"reserved": order["description"], "quantity": 2}


async def charge(order):
    quantity = order["inputs"]["reserve"]["quantity"]
    return {"charged": quantity * 21}


async def main(url):
    client = await nats.connect(url)

    def serve(step):
        async def answer(message):
            key = message.headers["Idempotency-Key"]
            try:
                if key not in done:
                    done[key] = await step(json.loads(message.data))
                await message.respond(json.dumps(done[key]).encode())
            except Exception as error:
                headers = {"Nats-Service-Error-Code": "500", "Nats-Service-Error": str(error)}
                await client.publish(message.reply, b"", headers=headers)

        return answer

    # A queue group: start as many of this program as you like.
    await client.subscribe("orders.reserve", queue="orders", cb=serve(reserve))
    await client.subscribe("orders.charge", queue="orders", cb=serve(charge))
    await client.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
