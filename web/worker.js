// Runs the networks in a Worker, so that no stroke waits for them. Follows litert.js in one script.
// In:  { runtime, wasm, models, size } once, then { pixels } (the sheet, RGBA) per picture wanted.
// Out: { ready }; for each sheet { picture, run } of every run, then { done: milliseconds };
//      or { error }, after which nothing comes.

// With WebGPU, LiteRT.js 2.5.3 computes different pictures: do not ask for a device.
createDefaultWebGpuDevice = async () => null;

const networks = [];
let height, width;

async function start({ runtime, wasm, models, size }) {
  [height, width] = size;
  // The runtime must not fetch: a page opened from a disk may not. Its notes are dropped.
  self.Module = { wasmBinary: wasm, printErr() {} };
  const script = URL.createObjectURL(new Blob([runtime], { type: "text/javascript" }));
  await loadLiteRt(`${script}#.js`);
  for (const model of models) {
    // The file's even bytes come first, then its odd bytes: interleave them.
    const parted = new Uint8Array(model), half = (parted.length + 1) >> 1;
    const bytes = parted.map((_, i) => parted[(i >> 1) + (i & 1) * half]);
    networks.push(await loadAndCompile(bytes, { accelerator: "wasm" }));
  }
  postMessage({ ready: true });
}

async function colour(pixels) {
  const started = performance.now(), sheet = new Float32Array(height * width * 3); // in [-1, 1]
  for (let i = 0, j = 0; i < pixels.length; i += 4) {
    for (let k = 0; k < 3; k += 1) sheet[j++] = pixels[i + k] / 127.5 - 1;
  }
  for (const [run, network] of networks.entries()) {
    const input = new Tensor(sheet, [1, height, width, 3]);
    const [output] = await network.run([input]);
    const values = output.toTypedArray(), picture = new Uint8ClampedArray(pixels.length).fill(255);
    for (let i = 0, j = 0; i < picture.length; i += 4) {
      for (let k = 0; k < 3; k += 1) picture[i + k] = (values[j++] + 1) * 127.5; // the array rounds
    }
    input.delete();
    output.delete();
    postMessage({ picture, run }, [picture.buffer]);
  }
  postMessage({ done: performance.now() - started });
}

onmessage = ({ data }) => {
  (data.models ? start(data) : colour(data.pixels)).catch((error) => {
    postMessage({ error: String(error?.message ?? error) });
  });
};
