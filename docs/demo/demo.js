// Names what a photo or a camera shows, by model.onnx and labels.json beside
// this page. Nothing leaves the browser.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

const MOST_NAMES = 5;
const MOST_LISTED = 10;
const FRAME_PAUSE = 200; // milliseconds
const ANY_SIZE = 224; // pixels, for a model that takes images of any size

const page = (id) => document.getElementById(id);
const say = (text) => (page("status").textContent = text);
let source = 0; // goes up with every photo or camera, and ends the one before

async function load() {
  ort.env.wasm.numThreads = 1; // more of them need cross-origin isolation
  const [labels, model] = await Promise.all(
    ["labels.json", "model.onnx"].map(async (name) => {
      const response = await fetch(name);
      if (!response.ok) {
        throw new Error(`There is no ${name} beside this page.`);
      }
      return name === "labels.json" ? response.json() : response.arrayBuffer();
    }),
  );
  const session = await ort.InferenceSession.create(new Uint8Array(model));
  const [input] = session.inputMetadata;
  const [, height, width, channels] = input.shape;
  const [, classes] = session.outputMetadata[0].shape;
  if (classes !== labels.length) {
    throw new Error(
      `labels.json has ${labels.length} names, and the model ${classes} classes.`,
    );
  }
  const size = (value) => (Number.isInteger(value) ? value : ANY_SIZE);
  return {
    labels,
    session,
    input: input.name,
    shape: [1, size(height), size(width), channels],
  };
}

// Returns raw pixels, 0 to 255, of the picture's centre: it is resized until it
// covers the model's size and cropped, as in training.
function pixels(picture, width, height, [, rows, columns, channels]) {
  const scale = Math.max(rows / height, columns / width);
  const canvas = new OffscreenCanvas(columns, rows);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(
    picture,
    (columns - width * scale) / 2,
    (rows - height * scale) / 2,
    width * scale,
    height * scale,
  );
  const { data } = context.getImageData(0, 0, columns, rows);
  const values = new Float32Array(rows * columns * channels);
  for (let i = 0; i < rows * columns; i++) {
    const [red, green, blue] = data.subarray(4 * i, 4 * i + 3);
    if (channels === 1) {
      values[i] = Math.round(0.299 * red + 0.587 * green + 0.114 * blue);
    } else {
      values.set([red, green, blue], 3 * i);
    }
  }
  return values;
}

async function classify(model, picture, width, height) {
  const values = pixels(picture, width, height, model.shape);
  const images = new ort.Tensor("float32", values, model.shape);
  const outputs = await model.session.run({ [model.input]: images });
  const logits = Array.from(Object.values(outputs)[0].data);
  const top = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - top));
  const sum = powers.reduce((a, b) => a + b);
  return powers
    .map((power, unit) => ({
      name: model.labels[unit],
      probability: power / sum,
    }))
    .sort((a, b) => b.probability - a.probability);
}

function show(ranked) {
  page("names").replaceChildren(
    ...ranked.slice(0, MOST_NAMES).map(({ name, probability }) => {
      const [item, line, bar] = ["li", "div", "progress"].map((tag) =>
        document.createElement(tag),
      );
      for (const text of [name, `${(100 * probability).toFixed(1)} %`]) {
        line.append(document.createElement("span"));
        line.lastChild.textContent = text;
      }
      bar.value = probability;
      item.append(line, bar);
      return item;
    }),
  );
}

function reveal(id) {
  source += 1;
  for (const other of ["hint", "photo", "camera"]) {
    page(other).hidden = other !== id;
  }
  page("camera").srcObject?.getTracks().forEach((track) => track.stop());
  page("camera").srcObject = null;
  return source;
}

async function showPhoto(model, file) {
  if (!file) return;
  const photo = page("photo");
  URL.revokeObjectURL(photo.src);
  photo.src = URL.createObjectURL(file);
  try {
    await photo.decode();
  } catch {
    reveal("hint");
    page("names").replaceChildren();
    say(`${file.name} is no picture that this browser can read.`);
    return;
  }
  reveal("photo");
  say(file.name);
  const { naturalWidth, naturalHeight } = photo;
  show(await classify(model, photo, naturalWidth, naturalHeight));
}

async function startCamera(model) {
  const camera = page("camera");
  const stream = await navigator.mediaDevices.getUserMedia({
    video: { facingMode: "environment" },
  });
  const mine = reveal("camera");
  camera.srcObject = stream;
  await camera.play();
  say("Camera");
  while (mine === source) {
    const { videoWidth, videoHeight } = camera;
    const ranked = await classify(model, camera, videoWidth, videoHeight);
    if (mine === source) show(ranked);
    await new Promise((resolve) => setTimeout(resolve, FRAME_PAUSE));
  }
}

// Shows an error where the user looks.
const guarded = (action) => async (event) => {
  try {
    await action(event);
  } catch (error) {
    say(error.message);
  }
};

guarded(async () => {
  const model = await load();
  const more = model.labels.length - MOST_LISTED;
  say(
    `Knows ${model.labels.slice(0, MOST_LISTED).join(", ")}` +
      (more > 0 ? ` and ${more} more.` : "."),
  );
  const drop = page("drop");
  page("file").onchange = guarded(({ target }) =>
    showPhoto(model, target.files[0]),
  );
  page("start").onclick = guarded(() => startCamera(model));
  document.ondragover = (event) => {
    event.preventDefault();
    drop.classList.add("over");
  };
  document.ondragleave = () => drop.classList.remove("over");
  document.ondrop = guarded((event) => {
    event.preventDefault();
    drop.classList.remove("over");
    return showPhoto(model, event.dataTransfer.files[0]);
  });
})();
