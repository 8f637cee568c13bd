// Replaces the renderer where there is no WebGL2: a picture drawn by the server, shifted and scaled until the next one.

const WAIT = 180;

export class Picture {
  /** @param {() => object} asked gives the request to the server; its `camera` is stored to position the picture */
  constructor(source, image, asked) {
    this.source = source;
    this.image = image;
    this.asked = asked;
    this.how = "picture";
    this.timer = null;
    this.drawn = null;
    this.address = "";
  }

  load() {}

  recode() {
    this.address = "";
  }

  resize() {}

  draw({ camera }, moving) {
    this.place(camera);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.fetch(camera), moving ? WAIT : 0);
    return 1;
  }

  fetch(camera) {
    const address = this.source.picture({
      ...this.asked(),
      box: camera.box.join(","),
      width: camera.width,
      height: camera.height,
    });
    if (!address || address === this.address) return;
    this.address = address;
    const at = this.source.still ? this.source.still(camera) : { x: camera.x, y: camera.y, zoom: camera.zoom };
    const next = new Image();
    next.onload = () => {
      if (address !== this.address) return;
      this.image.src = address;
      this.drawn = at;
      this.place(camera);
      this.onDrawn?.();
    };
    next.src = address;
  }

  /** Position of the current picture in the wanted view. */
  place(camera) {
    if (!this.drawn) return;
    const scale = camera.zoom / this.drawn.zoom;
    const dx = (this.drawn.x - camera.x) * camera.zoom,
      dy = (camera.y - this.drawn.y) * camera.zoom;
    this.image.style.transform = `translate(${dx}px, ${dy}px) scale(${scale})`;
  }

  close() {
    clearTimeout(this.timer);
  }
}
