// Asks with @nats-io/transport-node: ask.mjs <url> <body>. Prints a JSON list of what came back.
// The client is installed in the folder that MODULES names, not beside this file.
import { createRequire } from "node:module";
import { join } from "node:path";

const { connect } = createRequire(join(process.env.MODULES, "package.json"))("@nats-io/transport-node");

const [url, body] = process.argv.slice(2);
const client = await connect({ servers: url });
const ask = (payload) => client.request("execution.request", payload, { timeout: 10_000 });

const answers = [];
for (const payload of [body, body, JSON.stringify({ ...JSON.parse(body), language: "rust" })]) {
  answers.push((await ask(payload)).json());
}
const error = await ask("{nope");
answers.push({
  body: error.json(),
  code: error.headers?.get("Nats-Service-Error-Code"),
  said: error.headers?.get("Nats-Service-Error"),
});
await client.close();
console.log(JSON.stringify(answers));
