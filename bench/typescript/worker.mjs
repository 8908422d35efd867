// The worker of Powertools for TypeScript: `node worker.mjs URL`, asked as bench/speed/jobs.py says.
// Everything is its default.
import { existsSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { IdempotencyConfig, makeIdempotent } from '@aws-lambda-powertools/idempotency';
import { DynamoDBPersistenceLayer } from '@aws-lambda-powertools/idempotency/dynamodb';

const TABLE = 'bench';
const RESULT = { receipt: 'r-1' };
const REMAINING = 60_000;

let bodies = 0;
const config = new IdempotencyConfig({});
config.registerLambdaContext({ getRemainingTimeInMillis: () => REMAINING });
const persistenceStore = new DynamoDBPersistenceLayer({
  tableName: TABLE,
  clientConfig: { endpoint: process.argv[2] },
});
const charge = makeIdempotent(
  async (_order) => {
    bodies += 1;
    return RESULT;
  },
  { persistenceStore, config },
);

async function all(keys, concurrency) {
  const latencies = [];
  const rest = keys.values();
  const oneAfterTheOther = async () => {
    for (const key of rest) {
      const start = performance.now();
      const result = await charge(key);
      latencies.push((performance.now() - start) / 1000);
      if (result.receipt !== RESULT.receipt) throw new Error(`${key} was answered with ${JSON.stringify(result)}`);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, oneAfterTheOther));
  return latencies;
}

function percentile(ordered, share) {
  return ordered[Math.max(0, Math.ceil(ordered.length * share) - 1)];
}

// As bench/speed/jobs.py has it.
function peak() {
  const status = '/proc/self/status';
  if (!existsSync(status)) return process.resourceUsage().maxRSS * 1024;
  return 1024 * Number(/VmHWM:\s+(\d+)/.exec(readFileSync(status, 'utf8'))[1]);
}

async function measure(job) {
  const before = bodies;
  const processor = process.cpuUsage();
  const wall = performance.now();
  const latencies = await all(job.keys, job.concurrency);
  const spent = process.cpuUsage(processor);
  const ordered = latencies.sort((one, other) => one - other);
  return {
    calls: ordered.length,
    wall: (performance.now() - wall) / 1000,
    processor: (spent.user + spent.system) / 1e6,
    p50: percentile(ordered, 0.5),
    p99: percentile(ordered, 0.99),
    peak_bytes: peak(),
    bodies: bodies - before,
  };
}

async function answer(job) {
  if (job.do === 'measure') return measure(job);
  await all(job.keys, job.concurrency);
  return {};
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await answer(JSON.parse(line)))}\n`);
}
