// What the page takes of three.js 0.187.0 (MIT). three.js beside this file is made of it by:
//   npm install three@0.187.0 esbuild@0.25
//   npx esbuild three.entry.mjs --bundle --minify --format=esm --legal-comments=inline --outfile=three.js
export { AmbientLight, BufferAttribute, BufferGeometry, Box3, Color, GridHelper, Group, Line, LineBasicMaterial, LineSegments, Mesh, MeshBasicMaterial, PerspectiveCamera, Points, PointsMaterial, Raycaster, Scene, ShaderMaterial, SphereGeometry, Sprite, SpriteMaterial, CanvasTexture, Texture, PlaneGeometry, BoxGeometry, DoubleSide, Vector2, Vector3, Vector4, Matrix4, Quaternion, WebGLRenderer, WebGLRenderTarget, SRGBColorSpace, NoColorSpace, NearestFilter } from "three";
export { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
