// Where oidc-provider keeps what it issued: its documented extension point, an adapter for each kind of model.
// The one that it brings forgets all but the latest 1000, and knows no grace time.

const OF_A_GRANT = new Set(["AccessToken", "AuthorizationCode", "RefreshToken", "DeviceCode"]);

export class Memory {
  // graceSeconds: for how long a refresh token that was used may be used again, at most graceLimit times.
  constructor({ graceSeconds = 0, graceLimit = 1 }, onReplay) {
    this.grace = { milliseconds: graceSeconds * 1000, limit: graceLimit };
    this.onReplay = onReplay;
    this.kept = new Map();
  }

  adapter(model) {
    return {
      upsert: async (id, payload, seconds) => {
        const until = typeof seconds === "number" ? Date.now() + seconds * 1000 : Infinity;
        this.kept.set(`${model}:${id}`, { model, payload, until, uses: 0, usedAt: undefined });
      },
      find: async (id) => this.#shown(this.#alive(`${model}:${id}`)),
      findByUid: async (uid) => this.#where(model, (payload) => payload.uid === uid),
      findByUserCode: async (userCode) => this.#where(model, (payload) => payload.userCode === userCode),
      consume: async (id) => this.#consume(this.kept.get(`${model}:${id}`)),
      destroy: async (id) => this.kept.delete(`${model}:${id}`),
      revokeByGrantId: async (grantId) => {
        for (const [key, { model: kind, payload }] of this.kept) {
          if (OF_A_GRANT.has(kind) && payload.grantId === grantId) this.kept.delete(key);
        }
      },
    };
  }

  #alive(key) {
    const entry = this.kept.get(key);
    if (entry && entry.until <= Date.now()) this.kept.delete(key);
    return this.kept.get(key);
  }

  #shown(entry) {
    if (!entry) return undefined;
    const { consumed, ...unused } = entry.payload;
    return entry.usedAt !== undefined && this.#isForgiven(entry) ? unused : entry.payload;
  }

  #isForgiven({ model, uses, usedAt }) {
    const { milliseconds, limit } = this.grace;
    return model === "RefreshToken" && uses <= limit && Date.now() - usedAt < milliseconds;
  }

  #consume(entry) {
    if (entry.uses > 0) this.onReplay();
    entry.uses += 1;
    // The grace time runs from the first use, however often it is used again.
    entry.usedAt ??= Date.now();
    entry.payload.consumed ??= Math.floor(Date.now() / 1000);
  }

  #where(model, fits) {
    for (const [key, entry] of this.kept) {
      if (entry.model === model && fits(entry.payload)) return this.#shown(this.#alive(key));
    }
    return undefined;
  }
}
