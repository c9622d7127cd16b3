// Returns the texts of the page whose contrast to what they stand on is below 4.5.

function channels(colour) {
  return colour.match(/[\d.]+/g).map(Number);
}

function luminance([r, g, b]) {
  const linear = [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
}

function ground(element) {
  for (let at = element; at; at = at.parentElement) {
    const colour = channels(getComputedStyle(at).backgroundColor);
    if (colour.length < 4 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
}

function contrast(element) {
  const style = getComputedStyle(element);
  const ink = channels(element instanceof SVGElement ? style.fill : style.color);
  const [bright, dim] = [luminance(ink), luminance(ground(element))].sort((a, b) => b - a);
  return (bright + 0.05) / (dim + 0.05);
}

const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const weak = [];
let count = 0;
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
  count += 1;
  const ratio = contrast(element);
  if (ratio < 4.5) weak.push(`${ratio.toFixed(2)}: ${texts.currentNode.data}`);
}
return { count, weak };
