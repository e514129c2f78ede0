// demo.webhook_receiver: an HTTP server that turns what is posted to it into demo.webhook events.
//
// It listens on 127.0.0.1. Where workers are other containers, DEMO_WEBHOOK_HOST is the name by which they know this one.
'use strict';

const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');

const { Sensor } = require('../lib/attune_sensor.js');

const TRIGGER = 'demo.webhook';
const MAX_BODY_BYTES = 1024 * 1024;

const sensor = new Sensor();

function pathOf(rule) {
  return rule.config?.path || '/';
}

async function readBody(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function valueOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function answer(response, status, body) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(`${JSON.stringify(body)}\n`);
}

async function receive(request, response) {
  const called = request.url.split('?')[0];
  const rules = sensor.rules.filter((rule) => pathOf(rule) === called);
  if (rules.length === 0) return answer(response, 404, { error: `no rule listens on ${called}` });
  if (!['POST', 'PUT'].includes(request.method)) return answer(response, 405, { error: 'use POST or PUT' });
  const text = await readBody(request);
  if (text === undefined) return answer(response, 413, { error: `more than ${MAX_BODY_BYTES} bytes` });
  const payload = { method: request.method, path: called, headers: request.headers, body: valueOf(text) };
  const delivered = await Promise.all(rules.map((rule) => sensor.emit(TRIGGER, payload, rule)));
  const events = delivered.filter(Boolean).length;
  return answer(response, events > 0 ? 202 : 502, { events });
}

// Written beside its place and renamed, so that nobody reads half of it.
function announce(url) {
  const file = sensor.artifacts('demo/webhook.url');
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(`${file}.${process.pid}`, `${url}\n`);
  fs.renameSync(`${file}.${process.pid}`, file);
  console.log(`${sensor.ref}: listening on ${url} for ${sensor.rules.map((rule) => rule.ref).join(', ')}`);
}

const server = http.createServer((request, response) => {
  receive(request, response).catch((error) => {
    console.error(`${sensor.ref}: ${error.message}`);
    if (!response.headersSent) answer(response, 500, { error: 'see the log of the sensor' });
  });
});
server.on('error', (error) => {
  console.error(`${sensor.ref}: ${error.message}`);
  process.exit(1);
});
sensor.onStop(() => {
  server.close(() => process.exit(0));
  server.closeAllConnections?.();
});
const host = process.env.DEMO_WEBHOOK_HOST || '127.0.0.1';
const port = sensor.rules.map((rule) => rule.config?.port).find(Boolean) ?? 0;
server.listen(port, host, () => announce(`http://${host}:${server.address().port}`));
