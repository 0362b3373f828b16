// The 3D part: a room's points, cameras and boxes, flown through; knows nothing of questions.
import { OrbitControls, THREE as T } from "./three.js";

const NEAR = 0.02;

export function unpackCloud(buffer) {
  const head = new DataView(buffer);
  const n = head.getUint32(4, true);
  const f = (at) => head.getFloat32(at, true);
  const origin = [f(8), f(12), f(16)];
  const step = f(20);
  const whole = new Int16Array(buffer.slice(24, 24 + 6 * n));
  const points = new Float32Array(3 * n);
  for (let i = 0; i < 3 * n; i++) points[i] = origin[i % 3] + step * whole[i];
  return { points, colours: new Uint8Array(buffer, 24 + 6 * n, 3 * n), count: n };
}

export class Viewer {
  constructor(stage, labels) {
    this.stage = stage;
    this.labels = labels;
    this.renderer = new T.WebGLRenderer({ antialias: true, alpha: true, preserveDrawingBuffer: true });
    this.renderer.setPixelRatio(Math.min(2, window.devicePixelRatio || 1));
    const canvas = this.renderer.domElement;
    canvas.className = "three";
    canvas.tabIndex = 0;
    canvas.setAttribute("aria-label", "The room in 3D; drag to turn, click a thing to have it described");
    stage.prepend(canvas);
    this.canvas = canvas;
    this.scene = new T.Scene();
    this.camera = new T.PerspectiveCamera(55, 1, NEAR, 200);
    this.camera.up.set(0, 0, 1);
    this.controls = new OrbitControls(this.camera, canvas);
    this.controls.enableDamping = true;
    this.controls.dampingFactor = 0.12;
    this.controls.addEventListener("change", () => this.draw());
    this.controls.addEventListener("start", () => { this.flight = null; });
    this.room = new T.Group();
    this.marks = new T.Group();
    this.cameras = new T.Group();
    this.candidates = new T.Group();
    this.candidates.visible = false;
    this.scene.add(this.room, this.marks, this.cameras, this.candidates);
    this.tags = [];
    this.onPick = null;
    this.onMove = null;
    this._clicks();
    new ResizeObserver(() => this.resize()).observe(stage);
    this.resize();
  }

  resize() {
    const { clientWidth: w, clientHeight: h } = this.stage;
    if (!w || !h) return;
    this.renderer.setSize(w, h, false);
    this.camera.aspect = w / h;
    this.camera.updateProjectionMatrix();
    this.draw();
  }

  draw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame((now) => {
      this.pending = 0;
      if (this.flight) this._step(now);
      const moved = this.controls.update();
      if (this.material) this.material.uniforms.focal.value = this.renderer.domElement.height / 2 / Math.tan((this.camera.fov * Math.PI) / 360);
      this.renderer.render(this.scene, this.camera);
      this._placeTags();
      if (this.onMove) this.onMove();
      if (moved || this.flight) this.draw();
    });
  }

  setRoom(facts, cloud) {
    for (const group of [this.room, this.marks, this.cameras, this.candidates]) clear(group);
    this.setTags([]);
    this.facts = facts;
    this.cloud = cloud;
    const geometry = new T.BufferGeometry();
    geometry.setAttribute("position", new T.BufferAttribute(cloud.points, 3));
    geometry.setAttribute("color", new T.BufferAttribute(cloud.colours, 3, true));
    const roof = facts.ceiling === null ? 1e6 : facts.ceiling - 0.12;
    const size = this._size();
    this.material = new T.ShaderMaterial({
      uniforms: {
        roof: { value: roof },
        spacing: { value: facts.spacing },
        focal: { value: 1 },
        low: { value: new T.Vector3(...(facts.extent?.low ?? [-1e6, -1e6, -1e6])) },
        high: { value: new T.Vector3(...(facts.extent?.high ?? [1e6, 1e6, 1e6])) },
        eye: { value: this.camera.position },
      },
      // A wall between the eye and the room is left out, as is the ceiling.
      vertexShader: `attribute vec3 color; varying vec3 c; uniform float spacing, focal, roof; uniform vec3 low, high, eye;
        void main(){ c = color; vec4 p = modelViewMatrix * vec4(position, 1.0);
        bvec3 far = greaterThan(position, high - 0.12), near = lessThan(position, low + 0.12);
        bvec3 beyond = greaterThan(eye, high - 0.1), before = lessThan(eye, low + 0.1);
        bool hides = (far.x && beyond.x) || (far.y && beyond.y) || (near.x && before.x) || (near.y && before.y) || position.z > roof;
        gl_Position = hides ? vec4(2.0, 2.0, 2.0, 1.0) : projectionMatrix * p;
        gl_PointSize = clamp(focal * spacing / max(-p.z, 0.05), 1.5, 40.0); }`,
      fragmentShader: `varying vec3 c; void main(){ vec2 d = gl_PointCoord - 0.5; if (dot(d, d) > 0.25) discard; gl_FragColor = vec4(c, 1.0); }`,
    });
    this.room.add(new T.Points(geometry, this.material));
    facts.views.forEach((view, number) => this.cameras.add(frustum(view, number, Math.min(0.28, size * 0.04))));
    for (const each of facts.candidates) this.candidates.add(boxLines(each.box, "#8b5cf6", 0.55));
    this.selectView(0);
    this.home(true);
  }

  _size() {
    const e = this.facts.extent;
    return e ? Math.hypot(...e.high.map((h, i) => h - e.low[i])) : 3;
  }

  selectView(number) {
    this.cameras.children.forEach((each, i) => each.material.color.set(i === number ? "#f97316" : "#64748b"));
    this.draw();
  }

  home(now = false) {
    const e = this.facts.extent || { low: [-1, -1, 0], high: [1, 1, 2] };
    const middle = new T.Vector3(...e.low.map((l, i) => (l + e.high[i]) / 2));
    const away = this._size() * (this.camera.aspect < 1.2 ? 1.25 : 0.95);
    middle.z -= this._size() * 0.11; // the views lie over the lower part
    this.fly(new T.Vector3(0.5, -0.72, 0.95).normalize().multiplyScalar(away).add(middle), middle, now);
  }

  top() {
    const e = this.facts.extent;
    if (!e) return;
    const middle = new T.Vector3(...e.low.map((l, i) => (l + e.high[i]) / 2));
    this.fly(middle.clone().add(new T.Vector3(0, -0.01, this._size() * 1.0)), middle);
  }

  toView(number) {
    const p = this.facts.views[number].pose;
    const at = new T.Vector3(p[0][3], p[1][3], p[2][3]);
    this.fly(at, at.clone().add(new T.Vector3(p[0][2], p[1][2], p[2][2]).multiplyScalar(1.2)));
  }

  toBox(box) {
    const centre = new T.Vector3(...box.slice(0, 3));
    const e = this.facts.extent;
    const middle = e ? new T.Vector3(...e.low.map((l, i) => (l + e.high[i]) / 2)) : centre.clone();
    const from = middle.clone().sub(centre).setZ(0);
    if (from.length() < 0.3) from.set(0.6, -0.8, 0);
    const reach = Math.max(1.5, 1.5 * Math.hypot(...box.slice(3)));
    this.fly(from.normalize().multiplyScalar(reach).add(new T.Vector3(0, 0, reach * 0.75)).add(centre), centre);
  }

  fly(at, target, now = false) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (now || calm) {
      this.flight = null;
      this.camera.position.copy(at);
      this.controls.target.copy(target);
    } else {
      this.flight = { from: this.camera.position.clone(), at, looked: this.controls.target.clone(), target, start: performance.now() };
    }
    this.draw();
  }

  _step(now) {
    const f = this.flight;
    const t = Math.min(1, (now - f.start) / 900);
    const s = t * t * (3 - 2 * t);
    this.camera.position.lerpVectors(f.from, f.at, s);
    this.controls.target.lerpVectors(f.looked, f.target, s);
    if (t >= 1) this.flight = null;
  }

  // boxes: [{box, colour, text}], line: [a, b] or null, points: [[x, y, z]]
  mark(boxes, line = null, points = [], text = "") {
    clear(this.marks);
    const tags = [];
    for (const { box, colour, text: said } of boxes) {
      this.marks.add(...boxBeams(box, colour, Math.min(0.02, this._size() * 0.0025)));
      if (said) tags.push({ at: [box[0], box[1], box[2] + box[5] / 2], text: said });
    }
    for (const p of points) {
      const ball = new T.Mesh(new T.SphereGeometry(Math.min(0.035, this._size() * 0.006), 16, 12), new T.MeshBasicMaterial({ color: "#0d9488", depthTest: false }));
      ball.position.set(...p);
      ball.renderOrder = 3;
      this.marks.add(ball);
    }
    if (line) {
      const geometry = new T.BufferGeometry().setFromPoints(line.map((p) => new T.Vector3(...p)));
      const drawn = new T.Line(geometry, new T.LineBasicMaterial({ color: "#0d9488", depthTest: false }));
      drawn.renderOrder = 3;
      this.marks.add(drawn);
      if (text) tags.push({ at: line[0].map((v, i) => (v + line[1][i]) / 2), text });
    }
    this.setTags(tags);
    this.draw();
  }

  setTags(tags) {
    this.labels.replaceChildren();
    this.tags = tags.map(({ at, text }) => {
      const element = document.createElement("div");
      element.className = "tag";
      element.textContent = text;
      this.labels.append(element);
      return { at: new T.Vector3(...at), element };
    });
  }

  _placeTags() {
    for (const { at, element } of this.tags) {
      const p = at.clone().project(this.camera);
      element.style.display = p.z < 1 ? "" : "none";
      element.style.left = `${((p.x + 1) / 2) * this.stage.clientWidth}px`;
      element.style.top = `${((1 - p.y) / 2) * this.stage.clientHeight}px`;
    }
  }

  project(point) {
    const p = new T.Vector3(...point).project(this.camera);
    const r = this.canvas.getBoundingClientRect();
    return [r.left + ((p.x + 1) / 2) * r.width, r.top + ((1 - p.y) / 2) * r.height];
  }

  _clicks() {
    let down = null;
    this.canvas.addEventListener("pointerdown", (e) => { down = [e.clientX, e.clientY]; });
    this.canvas.addEventListener("pointerup", (e) => {
      if (!down || Math.hypot(e.clientX - down[0], e.clientY - down[1]) > 5 || !this.cloud) return;
      const point = this.pick(e.clientX, e.clientY);
      if (point && this.onPick) this.onPick(point);
    });
  }

  // The nearest point to the eye among those within a few pixels of the pointer.
  pick(x, y) {
    const r = this.canvas.getBoundingClientRect();
    const px = ((x - r.left) / r.width) * 2 - 1;
    const py = 1 - ((y - r.top) / r.height) * 2;
    this.camera.updateMatrixWorld();
    const m = new T.Matrix4().multiplyMatrices(this.camera.projectionMatrix, this.camera.matrixWorldInverse).elements;
    const roof = this.material.uniforms.roof.value;
    const { low: { value: low }, high: { value: high } } = this.material.uniforms;
    const eye = this.camera.position;
    const reach = 7 / r.height;
    const p = this.cloud.points;
    let best = -1;
    let least = Infinity;
    for (let i = 0; i < p.length; i += 3) {
      const a = p[i], b = p[i + 1], c = p[i + 2];
      if (c > roof || (a > high.x - 0.12 && eye.x > high.x - 0.1) || (b > high.y - 0.12 && eye.y > high.y - 0.1)) continue;
      if ((a < low.x + 0.12 && eye.x < low.x + 0.1) || (b < low.y + 0.12 && eye.y < low.y + 0.1)) continue;
      const w = m[3] * a + m[7] * b + m[11] * c + m[15];
      if (w < NEAR) continue;
      const dx = ((m[0] * a + m[4] * b + m[8] * c + m[12]) / w - px) * this.camera.aspect;
      const dy = (m[1] * a + m[5] * b + m[9] * c + m[13]) / w - py;
      const off = Math.hypot(dx, dy);
      if (off > 2 * reach) continue;
      const cost = w * (1 + 0.25 * (off / reach));
      if (cost < least) { least = cost; best = i; }
    }
    return best < 0 ? null : [p[best], p[best + 1], p[best + 2]].map((v) => Math.round(v * 1e4) / 1e4);
  }
}

function clear(group) {
  for (const each of [...group.children]) {
    group.remove(each);
    each.geometry?.dispose();
    each.material?.dispose();
  }
}

export function corners(box) {
  const [x, y, z, a, b, c] = box;
  return [...Array(8).keys()].map((i) => [x + (i & 1 ? a : -a) / 2, y + (i & 2 ? b : -b) / 2, z + (i & 4 ? c : -c) / 2]);
}

export const EDGES = [];
for (let a = 0; a < 8; a++) for (const bit of [1, 2, 4]) if (!(a & bit)) EDGES.push([a, a | bit]);

function boxLines(box, colour, opacity) {
  const c = corners(box);
  const geometry = new T.BufferGeometry().setFromPoints(EDGES.flat().map((i) => new T.Vector3(...c[i])));
  return new T.LineSegments(geometry, new T.LineBasicMaterial({ color: colour, transparent: true, opacity, depthTest: opacity < 1 }));
}

// Lines of WebGL are one pixel wide; beams are seen.
function boxBeams(box, colour, thick) {
  const c = corners(box);
  const beams = EDGES.map(([i, j]) => {
    const size = [0, 1, 2].map((k) => Math.abs(c[i][k] - c[j][k]) + thick);
    const beam = new T.Mesh(new T.BoxGeometry(...size), new T.MeshBasicMaterial({ color: colour, depthTest: false, transparent: true, opacity: 0.95 }));
    beam.position.set(...[0, 1, 2].map((k) => (c[i][k] + c[j][k]) / 2));
    beam.renderOrder = 2;
    return beam;
  });
  const faces = new T.Mesh(new T.BoxGeometry(...box.slice(3)), new T.MeshBasicMaterial({ color: colour, transparent: true, opacity: 0.14, depthWrite: false, side: T.DoubleSide }));
  faces.position.set(...box.slice(0, 3));
  faces.renderOrder = 1;
  return [faces, ...beams];
}

function frustum(view, number, reach) {
  const [fx, fy] = view.camera;
  const half = [((view.size[0] / fx) / 2) * reach, ((view.size[1] / fy) / 2) * reach];
  const p = view.pose;
  const put = (x, y, z) => new T.Vector3(...[0, 1, 2].map((i) => p[i][0] * x + p[i][1] * y + p[i][2] * z + p[i][3]));
  const eye = put(0, 0, 0);
  const ends = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([u, v]) => put(u * half[0], v * half[1], reach));
  const pairs = ends.flatMap((end, i) => [eye, end, end, ends[(i + 1) % 4]]);
  const lines = new T.LineSegments(new T.BufferGeometry().setFromPoints(pairs), new T.LineBasicMaterial({ color: "#64748b" }));
  lines.userData.number = number;
  return lines;
}
