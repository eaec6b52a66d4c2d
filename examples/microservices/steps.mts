// Steps of the workflow "Design a scalable microservices architecture for …", as a service of your own on NATS.
//
//   npm install @nats-io/transport-node tsx
//   npx tsx steps.mts [nats://127.0.0.1:4222]
//
// A step is a subject. Tandem asks on it with {"task", "description", "inputs"}, where `inputs` has what the tasks that it
// depends on have given, by their ids; the reply is the step's output, as JSON. What goes wrong is answered with the headers of
// a NATS service error.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { Msg, NatsConnection } from "@nats-io/transport-node";

// The client may be installed elsewhere: MODULES names the folder.
const modules = process.env.MODULES ?? import.meta.dirname;
const { connect, headers } = createRequire(join(modules, "package.json"))(
  "@nats-io/transport-node",
) as typeof import("@nats-io/transport-node");

interface Domain {
  name: string;
  requirements: string[];
}

interface Service {
  name: string;
  owns: string;
  asks: string[];
  publishes: string;
}

// What a requirement is about: the noun that comes first after the article.
const subjectOf = (requirement: string) => /^An? (\w+)/.exec(requirement)?.[1]?.toLowerCase() ?? "shop";

const steps: Record<string, (inputs: Record<string, any>) => object> = {
  "steps.architecture.analyze": () => {
    const text = readFileSync(new URL("requirements.md", import.meta.url), "utf8");
    const requirements = text.split("\n").filter((line) => line.startsWith("- ")).map((line) => line.slice(2).trim());
    return { requirements };
  },
  "steps.architecture.domains": ({ analyze_requirements: { requirements } }) => {
    const domains = new Map<string, string[]>();
    for (const requirement of requirements as string[]) {
      const name = subjectOf(requirement);
      domains.set(name, [...(domains.get(name) ?? []), requirement]);
    }
    return { domains: [...domains].map(([name, requirements]): Domain => ({ name, requirements })) };
  },
  "steps.architecture.services": ({ identify_domains: { domains } }) => {
    const services = (domains as Domain[]).map(({ name, requirements }): Service => {
      const others = (domains as Domain[]).map((domain) => domain.name).filter((other) => other !== name);
      const asks = others.filter((other) => requirements.some((text) => new RegExp(`\\b${other}s?\\b`, "i").test(text)));
      return { name: `${name}-service`, owns: `${name}s`, asks: asks.map((other) => `${other}-service`), publishes: `${name}s.*` };
    });
    return { services };
  },
  "steps.architecture.deployment": ({ design_services: { services } }) => {
    const lines = (services as Service[]).flatMap(({ name, asks }) => [
      `  ${name}:`,
      `    image: shop/${name}`,
      `    depends_on: [${["nats", ...asks].join(", ")}]`,
    ]);
    return { "compose.yaml": ["services:", "  nats:", "    image: nats:2.12", ...lines, ""].join("\n") };
  },
  "steps.architecture.documentation": ({ plan_deployment }) => {
    const compose = plan_deployment["compose.yaml"] as string;
    const names = [...compose.matchAll(/^ {2}([\w-]+):$/gm)].map((found) => found[1]);
    return { markdown: `# The shop's services\n\n${names.map((name) => `- ${name}`).join("\n")}\n\n\`\`\`yaml\n${compose}\`\`\`\n` };
  },
};

function serve(client: NatsConnection, message: Msg) {
  try {
    const { inputs } = message.json<{ inputs: Record<string, any> }>();
    message.respond(JSON.stringify(steps[message.subject](inputs)));
  } catch (problem) {
    const fields = headers();
    fields.set("Nats-Service-Error-Code", "500");
    fields.set("Nats-Service-Error", String(problem).replace(/\s+/g, " ").slice(0, 500));
    if (message.reply) client.publish(message.reply, "{}", { headers: fields });
  }
}

const client = await connect({ servers: process.argv[2] ?? "nats://127.0.0.1:4222" });
for (const subject of Object.keys(steps)) {
  // One queue: start as many of these as you need. These steps have no effect, so doing one twice does no harm.
  client.subscribe(subject, { queue: "architecture-steps", callback: (_, message) => serve(client, message) });
}
await client.flush();
console.log("ready");
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => void client.drain().then(() => process.exit(0)));
}
