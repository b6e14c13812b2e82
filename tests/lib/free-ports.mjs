// Prints a free port (`one`) or a port offset at which a devnet of N nodes finds all its ports free (`devnet N`).
import { createServer } from 'node:net';
import { createSocket } from 'node:dgram';

/** First port of each family of a devnet; node i takes the i-th after it. */
const FAMILIES = [8545, 5052, 9200, 9100, 9000, 30303];
const ATTEMPTS = 50;

const listen = (port) =>
  new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => {
      const taken = server.address().port;
      server.close(() => resolve(taken));
    });
  });

const listenUdp = (port) =>
  new Promise((resolve, reject) => {
    const socket = createSocket('udp4');
    socket.once('error', reject);
    socket.bind(port, '127.0.0.1', () => socket.close(resolve));
  });

async function allFree(offset, nodes) {
  try {
    for (const base of FAMILIES) {
      for (let node = 0; node < nodes; node++) {
        await listen(base + offset + node);
        await listenUdp(base + offset + node);
      }
    }
    return true;
  } catch {
    return false;
  }
}

async function freeOffset(nodes) {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    // Below 2,400, so that no port reaches the range that outgoing connections take theirs from.
    const offset = 200 + Math.floor(Math.random() * 2000);
    if (await allFree(offset, nodes)) return offset;
  }
  throw new Error(`no offset with ${nodes} nodes' ports free in ${ATTEMPTS} attempts`);
}

const [mode, nodes] = process.argv.slice(2);
console.log(mode === 'devnet' ? await freeOffset(Number(nodes)) : await listen(0));
