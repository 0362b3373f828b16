// Where a page's rooms come from: the server it was opened from, or the file that it is.

async function fetched(path, options) {
  const reply = await fetch(path, options);
  if (!reply.ok) {
    const content = await reply.json().catch(() => null);
    throw new Error(content?.error?.message ?? `the server says ${reply.status}`);
  }
  return reply;
}

function online() {
  const at = (room) => `/v1/rooms/${encodeURIComponent(room)}`;
  return {
    rooms: async () => (await fetched("/v1/rooms")).json(),
    room: async (id) => (await fetched(at(id))).json(),
    cloud: async (id) => (await fetched(`${at(id)}/cloud`)).arrayBuffer(),
    status: async () => (await fetched("/v1/status")).json(),
    picture: (id, view, kind) => `${at(id)}/views/${view}?kind=${kind}`,
    above: (id) => `${at(id)}/above`,
    call: async (id, what, body) =>
      (await fetched(`${at(id)}/${what}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) })).json(),
  };
}

function bytes(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
}

// Everything lies in the file; lengths are computed here, without the scatter of views that a server would add.
function offline() {
  const rooms = JSON.parse(document.getElementById("rooms").textContent);
  const of = (id) => rooms.find((room) => room.facts.id === id);
  return {
    rooms: async () => ({ rooms: rooms.map(({ facts }) => ({ id: facts.id, title: facts.title, state: "open" })) }),
    room: async (id) => of(id).facts,
    cloud: async (id) => bytes(of(id).cloud),
    status: async () => ({ state: "none" }),
    picture: (id, view, kind) => of(id).views[view][kind] ?? of(id).views[view].colour,
    above: (id) => of(id).above,
    call: async (id, what, { a, b }) => {
      const { facts } = of(id);
      if (what !== "measure") throw new Error("This file has no model and no depth; open it with 'stereopsis serve'.");
      if (!facts.scale.known) throw new Error(`No metres here: ${facts.scale.words}`);
      if (!b) return { sentence: `${a[2].toFixed(2)} m above the floor` };
      const distance = Math.hypot(...a.map((v, i) => v - b[i]));
      const horizontal = Math.hypot(a[0] - b[0], a[1] - b[1]);
      return { distance, horizontal, vertical: Math.abs(a[2] - b[2]), uncertainty: null, things: [{ views: 0 }, { views: 0 }], sentence: `${distance.toFixed(2)} m apart` };
    },
  };
}

export const source = (settings) => (settings.offline ? offline() : online());
