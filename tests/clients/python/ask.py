"""Asks with nats-py: ask.py <url> <body>. Prints a JSON list of what came back."""

import asyncio
import json
import sys

import nats


async def main(url, body):
    client = await nats.connect(url)

    async def ask(payload):
        return await client.request("execution.request", payload, timeout=10)

    answers = [json.loads((await ask(body.encode())).data) for _ in range(2)]
    other = {**json.loads(body), "language": "rust"}
    answers.append(json.loads((await ask(json.dumps(other).encode())).data))
    error = await ask(b"{nope")
    headers = error.headers
    answers.append(
        {
            "body": json.loads(error.data),
            "code": headers["Nats-Service-Error-Code"],
            "said": headers["Nats-Service-Error"],
        }
    )
    await client.close()
    print(json.dumps(answers))


asyncio.run(main(*sys.argv[1:]))
