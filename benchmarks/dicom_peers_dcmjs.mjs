// Reads DICOM SEG files with dcmjs: node dicom_peers_dcmjs.mjs NODE_MODULES FILE...
// Beside each FILE it writes FILE.json: [x, y, z, label, value] of every voxel that is not 0; mm, LPS.
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const [modules, ...files] = process.argv.slice(2);
const dcmjs = createRequire(path.resolve(modules, "resolver.js"))("dcmjs");
const first = (item) => (Array.isArray(item) ? item[0] : item);

function voxels(file) {
  const bytes = fs.readFileSync(file);
  const parsed = dcmjs.data.DicomMessage.readFile(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const dataset = dcmjs.data.DicomMetaDictionary.naturalizeDataset(parsed.dict);
  const stored = first(dataset.PixelData);
  const pixels = dataset.BitsAllocated === 1 ? dcmjs.data.BitArray.unpack(stored) : new Uint8Array(stored);
  const shared = first(dataset.SharedFunctionalGroupsSequence);
  const [across, down] = [0, 3].map((at) =>
    first(shared.PlaneOrientationSequence).ImageOrientationPatient.map(Number).slice(at, at + 3));
  const [betweenRows, betweenColumns] = first(shared.PixelMeasuresSequence).PixelSpacing.map(Number);
  const labels = new Map([].concat(dataset.SegmentSequence).map((segment) =>
    [Number(segment.SegmentNumber), Number(String(segment.SegmentDescription).split(" ").pop())]));
  const area = dataset.Rows * dataset.Columns;
  const found = [];
  [].concat(dataset.PerFrameFunctionalGroupsSequence).forEach((frame, index) => {
    const origin = first(frame.PlanePositionSequence).ImagePositionPatient.map(Number);
    const named = first(frame.SegmentIdentificationSequence ?? shared.SegmentIdentificationSequence);
    for (let at = 0; at < area; at += 1) {
      // BitArray.unpack gives 255 for a bit that is set.
      const value = dataset.BitsAllocated === 1 ? Math.sign(pixels[index * area + at]) : pixels[index * area + at];
      if (!value) continue;
      const [row, column] = [Math.floor(at / dataset.Columns), at % dataset.Columns];
      const place = origin.map((mm, axis) => mm + across[axis] * betweenColumns * column + down[axis] * betweenRows * row);
      found.push([...place, labels.get(named ? Number(named.ReferencedSegmentNumber) : value), named ? value : 1]);
    }
  });
  return found;
}

for (const file of files) fs.writeFileSync(`${file}.json`, JSON.stringify(voxels(file)));
