// Text on a canvas that overlaps no other: each label claims its box, at the first of some places where it is free.

export class Taken {
  /** @param {number[][]} [boxes] left, top, right, bottom of what is drawn already */
  constructor(boxes = []) {
    this.boxes = boxes;
  }

  /**
   * Keep a box and return true, unless it overlaps one that is kept.
   * @param {number[]} box left, top, right, bottom
   */
  claim(box) {
    if (this.boxes.some((t) => t[0] < box[2] && t[2] > box[0] && t[1] < box[3] && t[3] > box[1])) return false;
    this.boxes.push(box);
    return true;
  }
}
