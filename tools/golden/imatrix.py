"""An importance matrix as llama.cpp writes one, for the small decoder of crates/lowbit-model/tests/common/mod.rs.

    python tools/golden/imatrix.py         writes crates/lowbit-model/tests/golden/imatrix.gguf
"""

import pathlib

import gguf
import numpy as np

OUT = pathlib.Path(__file__).parents[2] / "crates/lowbit-model/tests/golden/imatrix.gguf"
# Width of the inputs of the matrices of a layer.
WIDTHS = {"attn_q": 48, "attn_k": 48, "attn_v": 48, "attn_output": 48, "ffn_gate": 48, "ffn_up": 48, "ffn_down": 80}
COUNT = 512


def main():
    writer = gguf.GGUFWriter(OUT, arch="")
    writer.kv_data[0].clear()  # as llama.cpp has it: no architecture
    writer.add_type(gguf.GGUFType.IMATRIX)
    writer.add_array(gguf.Keys.IMatrix.DATASETS, ["train.txt"])
    writer.add_uint32(gguf.Keys.IMatrix.CHUNK_COUNT, 1)
    writer.add_uint32(gguf.Keys.IMatrix.CHUNK_SIZE, COUNT)
    for layer in range(2):
        for number, (name, width) in enumerate(WIDTHS.items()):
            # The mean square of input i is layer + number + i / 4.
            sums = COUNT * (layer + number + np.arange(width, dtype=np.float32) / 4)
            writer.add_tensor(f"blk.{layer}.{name}.weight.in_sum2", sums[None, :])
            writer.add_tensor(f"blk.{layer}.{name}.weight.counts", np.full((1, 1), COUNT, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
