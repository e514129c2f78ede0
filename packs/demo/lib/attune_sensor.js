// What every sensor in Node.js needs: its rules, a way to emit events, and the end. Needs Node.js 18, nothing else.
'use strict';

const { execFile } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const TRIES = 3;

class Sensor {
  constructor() {
    this.ref = process.env.ATTUNE_SENSOR_REF;
    // One element for each enabled rule: {config: <trigger_params>, id: <rule id>, ref: <rule ref>}.
    this.rules = JSON.parse(process.env.ATTUNE_SENSOR_TRIGGERS || '[]');
    this.events = `${process.env.ATTUNE_API_URL.replace(/\/+$/, '')}/api/v1/events`;
    // With this file the host renews the token while the sensor runs; it only has to know that somebody reads it.
    this.tokenFile = process.env.ATTUNE_API_TOKEN_FILE;
    this.notify('READY=1', ...(this.tokenFile ? ['X_ATTUNE_KEEPS=token'] : []));
  }

  // Says how the sensor is: READY=1, STATUS=..., WATCHDOG=1. Node.js has no datagram sockets for that, the agent has.
  notify(...words) {
    if (!process.env.NOTIFY_SOCKET || !process.env.ATTUNE_AGENT_BIN) return;
    execFile(process.env.ATTUNE_AGENT_BIN, ['notify', ...words], (error) => {
      if (error) console.error(`${this.ref}: the host was not told: ${error.message}`);
    });
  }

  // The token of the moment.
  token() {
    return this.tokenFile ? fs.readFileSync(this.tokenFile, 'ascii').trim() : process.env.ATTUNE_API_TOKEN;
  }

  // A path below the folder that sensors and actions share.
  artifacts(name) {
    return path.join(process.env.ATTUNE_ARTIFACTS_DIR || '.', name);
  }

  // Calls `stop` once when the host wants the sensor to end.
  onStop(stop) {
    for (const signal of ['SIGTERM', 'SIGINT']) {
      process.once(signal, stop);
    }
  }

  // Posts an event for one rule; false when it could not be delivered.
  async emit(triggerRef, payload, rule) {
    const body = JSON.stringify({
      trigger_ref: triggerRef,
      payload,
      trigger_instance_id: `rule_${rule.id}`,
    });
    let problem;
    for (let attempt = 1; attempt <= TRIES; attempt += 1) {
      try {
        const answer = await fetch(this.events, {
          method: 'POST',
          headers: { authorization: `Bearer ${this.token()}`, 'content-type': 'application/json' },
          body,
          signal: AbortSignal.timeout(10_000),
        });
        if (answer.ok) {
          await answer.body?.cancel();
          return true;
        }
        problem = `${answer.status} ${await answer.text()}`;
        if (answer.status === 401) {
          // The host starts the sensor again, with a new token.
          console.error(`${this.ref}: the token is not accepted any more`);
          process.exit(1);
        }
        if (answer.status < 500) break;
      } catch (error) {
        problem = error.cause?.message ?? error.message;
      }
      await new Promise((resolve) => setTimeout(resolve, 200 * attempt));
    }
    console.error(`${this.ref}: event for ${rule.ref} not delivered: ${problem}`);
    return false;
  }
}

module.exports = { Sensor };
