"""Small files in the formats of MNIST and CIFAR-10 that the tests of data sets share."""

import gzip
import io
import tarfile

import numpy as np
import torch

IMAGES, LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


def idx(array: np.ndarray) -> bytes:
    """An unsigned-byte IDX file of ``array``."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype("u1").tobytes()


def write_mnist_files(folder):
    """Five small pictures in the files and format of MNIST."""
    rng = np.random.default_rng(0)
    (folder / IMAGES).write_bytes(gzip.compress(idx(rng.integers(0, 256, (5, 28, 28)))))
    (folder / LABELS).write_bytes(gzip.compress(idx(np.array([3, 1, 4, 1, 5]))))


ARCHIVE, UNPACKED = "cifar-10-binary.tar.gz", "cifar-10-batches-bin"
FILES = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
RECORDS = np.random.default_rng(0).integers(0, 256, (6, 3, 1 + 3072), np.uint8)
RECORDS[..., 0] = np.arange(18).reshape(6, 3) % 10


def member(name, content=b"", kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(f"{UNPACKED}/{name}")
    info.size, info.type, info.linkname = len(content), kind, f"{UNPACKED}/readme.html"
    return info, content


def tar(members) -> bytes:
    """A tar archive of pairs of a header and the content."""
    with io.BytesIO() as raw:
        with tarfile.open(fileobj=raw, mode="w") as archive:
            for info, content in members:
                archive.addfile(info, io.BytesIO(content))
        return raw.getvalue()


# In the order of the real archive, with what else is in it.
WHOLE_CIFAR10 = tar(
    [member("", kind=tarfile.DIRTYPE), member("batches.meta.txt", b"airplane")]
    + [member(name, records.tobytes()) for name, records in zip(FILES, RECORDS, strict=True)]
    + [member("readme.html", b"<html>")]
)


def check_cifar10(data):
    """Record by record: a label, then the red, the green and the blue plane, each by rows."""
    assert data.num_classes == 10
    for x, y, records in ((data.train_x, data.train_y, RECORDS[:5]), (data.test_x, data.test_y, RECORDS[5:])):
        records = records.reshape(-1, 1 + 3072)
        assert x.dtype == torch.float32 and x.shape == (len(records), 3, 32, 32)
        assert y.dtype == torch.int64 and y.tolist() == records[:, 0].tolist()
        assert x.min() == 0 and x.max() == 1
        for channel, row, column in ((0, 0, 0), (0, 0, 31), (0, 31, 0), (1, 2, 3), (2, 0, 0), (2, 31, 31)):
            values = records[:, 1 + 1024 * channel + 32 * row + column]
            np.testing.assert_allclose(x[:, channel, row, column], values / 255, rtol=1e-6)
