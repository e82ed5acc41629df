const net = require('net');

/**
 * Where nginx sends what it cannot hand to the API while that restarts: each connection waits until the API's port opens
 * and is then passed through. Returns how to close it; a port that is taken already means no waiting room, and no error.
 */
function openWaitingRoom(port, apiPort, seconds) {
  const guests = new Set();
  const server = net.createServer((guest) => {
    guests.add(guest);
    guest.on('close', () => guests.delete(guest)).on('error', () => {});
    const giveUp = Date.now() + seconds * 1000;
    const enter = () => {
      if (guest.destroyed) return;
      const api = net.connect(apiPort, '127.0.0.1');
      api.once('connect', () => guest.pipe(api).pipe(guest));
      api.on('error', () => (Date.now() < giveUp && !api.bytesWritten ? setTimeout(enter, 50) : guest.destroy()));
      guest.once('close', () => api.destroy());
    };
    enter();
  });
  server.on('error', () => {});
  server.listen(port, '127.0.0.1');
  return async () => {
    server.close();
    for (let at = 0; guests.size && at < 40; at += 1) await pause(50); // those that were let in get their answer
    for (const guest of guests) guest.destroy();
  };
}
