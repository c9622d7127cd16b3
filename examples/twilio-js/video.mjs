// Video takes its token when it connects, and shows the same one again when it has to connect anew. So there
// is nothing to update: each connect gets a fresh token. See video.html for a page.
import { TOKEN_CODES } from "./clients.mjs";
import { fetchToken } from "./keeper.mjs";

const DENIED = new Set(TOKEN_CODES);
const ATTEMPTS = 3;

/** Resolve to a room. *connect* is that of twilio-video. A token that is refused is reported, and replaced. */
export async function join(connect, where, options, refused = {}) {
  let token = await fetchToken(where, refused);
  for (let attempt = 1; ; attempt += 1) {
    try {
      return { room: await connect(token, options), token };
    } catch (error) {
      if (!DENIED.has(error.code) || attempt === ATTEMPTS) throw error;
      token = await fetchToken(where, { insteadOf: token, code: error.code });
    }
  }
}

/** Stay in a room until `leave()`; *entered* is told each room, *failed* why there is none any more. */
export function stay(connect, where, options, { entered, failed }) {
  let current = null;
  let isLeaving = false;
  async function enter(refused) {
    try {
      const { room, token } = await join(connect, where, options, refused);
      if (isLeaving) return room.disconnect();
      current = room;
      room.once("disconnected", (_, error) => {
        if (!isLeaving && DENIED.has(error?.code)) enter({ insteadOf: token, code: error.code });
        else if (!isLeaving) failed(error);
      });
      entered(room);
    } catch (error) {
      failed(error);
    }
  }
  enter();
  return {
    leave() {
      isLeaving = true;
      current?.disconnect();
    },
  };
}
