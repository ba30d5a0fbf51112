// MQTT.js as a puppet: orders on standard input, reports on standard output, a form a line (see ../puppets/lines.py).
// Started as `node puppet.mjs ADDRESS CA CERT KEY`; over secure WebSocket when the address is a wss:// URL.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import mqtt from "mqtt";

const [address, ca, cert, key] = process.argv.slice(2);
const url = address.includes("://") ? address : `mqtts://${address}`;
const ALIASES = 10;
let client = null;
let leaving = false;

function say(kind, fields = {}) {
  const line = new URLSearchParams({ is: kind });
  for (const [name, value] of Object.entries(fields)) {
    for (const each of Array.isArray(value) ? value : [value]) line.append(name, String(each));
  }
  process.stdout.write(`${line}\n`);
}

// A reason code is a number, in the error or only in the packet; the codes of Node's own errors are names.
function reasonOf(error, packet, otherwise) {
  if (typeof error?.code === "number") return error.code;
  return packet?.reasonCode ?? packet?.granted?.[0] ?? (error ? -1 : otherwise);
}

// MQTT.js gives user properties as an object, so only the order within one name can be seen.
function usersOf(properties) {
  return Object.entries(properties.userProperties ?? {}).flatMap(([name, values]) =>
    [values].flat().map((value) => `${name}=${value}`),
  );
}

function usersTo(order) {
  const users = {};
  for (const user of order.getAll("user")) {
    const [name, value] = user.split(/=(.*)/s);
    users[name] = name in users ? [users[name], value].flat() : value;
  }
  return users;
}

function onMessage(topic, payload, packet) {
  const properties = packet.properties ?? {};
  say("message", {
    topic,
    payload: payload.toString("hex"),
    qos: packet.qos,
    retain: Number(packet.retain),
    user: usersOf(properties),
    response_topic: properties.responseTopic ?? "",
    correlation: (properties.correlationData ?? Buffer.alloc(0)).toString("hex"),
  });
}

function connect(order) {
  const version = Number(order.get("version"));
  leaving = false;
  let ended = false;
  client = mqtt.connect(url, {
    ca: readFileSync(ca),
    cert: readFileSync(cert),
    key: readFileSync(key),
    clientId: order.get("id"),
    clean: order.get("clean") === "1",
    protocolVersion: version,
    reconnectPeriod: 0,
    resubscribe: false,
    properties:
      version === 5
        ? { sessionExpiryInterval: Number(order.get("expiry")), topicAliasMaximum: ALIASES }
        : undefined,
    will:
      order.get("will") === "1"
        ? {
            topic: order.get("topic"),
            payload: Buffer.from(order.get("payload"), "hex"),
            qos: Number(order.get("qos")),
            retain: order.get("retain") === "1",
          }
        : undefined,
  });
  const current = client;
  const end = (reason) => {
    if (!leaving && !ended && current === client) say("ended", { reason });
    ended = true;
  };
  client.on("message", onMessage);
  let connected = false;
  client.once("connect", (connack) => {
    connected = true;
    say("connect", { reason: connack.reasonCode ?? connack.returnCode, present: Number(connack.sessionPresent) });
  });
  client.on("disconnect", (packet) => end(packet.reasonCode ?? -1));
  client.on("close", () => end(-1));
  client.on("error", (error) => {
    if (!connected) say("connect", { reason: reasonOf(error, null, -1), error: error.message });
  });
}

function publish(order) {
  const responseTopic = order.get("response_topic");
  const properties = {};
  if (order.has("user")) properties.userProperties = usersTo(order);
  if (responseTopic) {
    properties.responseTopic = responseTopic;
    properties.correlationData = Buffer.from(order.get("correlation"), "hex");
  }
  client.publish(
    order.get("topic"),
    Buffer.from(order.get("payload"), "hex"),
    { qos: Number(order.get("qos")), retain: order.get("retain") === "1", properties },
    (error, packet) => say("publish", { reason: reasonOf(error, packet, 0), error: error?.message ?? "" }),
  );
}

const actions = {
  connect,
  publish,
  subscribe: (order) =>
    client.subscribe(order.get("topic"), { qos: Number(order.get("qos")) }, (error, _granted, packet) =>
      say("subscribe", { reason: reasonOf(error, packet, -1) }),
    ),
  unsubscribe: (order) =>
    client.unsubscribe(order.get("topic"), (error, packet) =>
      say("unsubscribe", { reason: reasonOf(error, packet, -1) }),
    ),
  disconnect: () => {
    leaving = true;
    client.end(false, () => say("disconnect"));
  },
};

const orders = createInterface({ input: process.stdin });
orders.on("line", (line) => {
  const order = new URLSearchParams(line);
  actions[order.get("do")](order);
});
orders.on("close", () => process.exit(0));
