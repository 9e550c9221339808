"""Pictures: folders of classes, tables of files, masks, DICOM windows; damage by name and count."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from collegium.core.errors import InvalidInput
from collegium.data.checks import check
from collegium.data.pixels import BadPicture, decoded, decoded_mask, fitted
from collegium.data.readers import read_site_data

Make = Callable[..., Any]


def png(path: Path, values: Any, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype=np.uint8)).save(path)
    if mode:
        Image.open(path).convert(mode).save(path)


def encoded(values: Any, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, form)
    return stream.getvalue()


def grey(value: int, size: tuple[int, int] = (4, 6)) -> np.ndarray:
    return np.full(size, value, dtype=np.uint8)


def everything(data: Any) -> list[tuple[int, int]]:
    """(first pixel, label) of all records, sorted."""
    x = np.concatenate([data.train_x, data.test_x])
    y = np.concatenate([data.train_y, data.test_y])
    return sorted(zip(x.reshape(len(x), -1)[:, 0].tolist(), y.tolist(), strict=True))


@pytest.fixture
def plan(plan_of: Make) -> Any:
    """Grey pictures of 4 x 6 pixels, ill or well."""
    return plan_of(bounds={}, image=(4, 6, 1))


def test_a_folder_per_class(tmp_path: Path, make_site: Make, plan: Any) -> None:
    png(tmp_path / "xray" / "ill" / "a.png", grey(10))
    png(tmp_path / "xray" / "healthy" / "b.png", grey(20, (8, 12)))
    (tmp_path / "xray" / "healthy" / "notes.txt").write_text("left alone")
    (tmp_path / "xray" / ".thumbs").mkdir()
    site = make_site(tmp_path, "images", "xray", labels={"healthy": "well"})
    data = read_site_data(site, plan)
    assert everything(data) == [(10, 0), (20, 1)]
    assert data.train_x.shape[1:] == (4, 6, 1) and data.train_x.dtype == np.uint8
    assert check(data, model=plan.model, public_records=9) == []
    with pytest.raises(InvalidInput, match='folder "healthy"'):
        read_site_data(make_site(tmp_path, "images", "xray"), plan)
    with pytest.raises(InvalidInput, match="to which unit"):
        read_site_data(make_site(tmp_path, "images", "xray", unit="patient"), plan)


def test_a_table_of_files_with_units(tmp_path: Path, make_site: Make, plan: Any) -> None:
    for number in range(6):
        png(tmp_path / "xray" / "p" / f"{number}.png", grey(number))
    table = tmp_path / "xray" / "labels.csv"
    lines = [f"p/{n}.png,{'ill' if n % 2 else 'well'},p{n // 2}" for n in range(6)]
    table.write_text("\n".join(["file,outcome,patient", *lines]))
    for path in ("xray", "xray/labels.csv"):
        data = read_site_data(make_site(tmp_path, "images", path, unit="patient"), plan)
        assert everything(data) == [(n, 1 - n % 2) for n in range(6)]
        assert not set(data.train_units) & set(data.test_units)
    table.write_text("file,outcome\n../secret.png,ill\n")
    with pytest.raises(InvalidInput, match="outside its folder"):
        read_site_data(make_site(tmp_path, "images", "xray"), plan)
    table.write_text("file,outcome\np/0.png,ill\ngone.png,ill\n")
    with pytest.raises(InvalidInput, match="1 of the 2 files"):
        read_site_data(make_site(tmp_path, "images", "xray"), plan)


def test_corrupt_pictures_are_named_by_file_and_count(
    tmp_path: Path, make_site: Make, plan: Any
) -> None:
    png(tmp_path / "x" / "ill" / "good.png", grey(1))
    whole = encoded(grey(99, (64, 64)))
    (tmp_path / "x" / "ill" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "x" / "ill" / "text.png").write_bytes(b"4711 is no picture")
    (tmp_path / "x" / "ill" / "none.jpg").write_bytes(b"")
    with pytest.raises(InvalidInput) as caught:
        read_site_data(make_site(tmp_path, "images", "x"), plan)
    text = caught.value.message()
    assert '"cut.png" (file 1 of 4 in sorted order): 1 of 4 files cannot be read: it is' in text
    assert '"none.jpg" (file 3 of 4 in sorted order), "text.png" (file 4 of 4 in' in text
    assert "4711" not in text and caught.value.exit_code == 65


def test_one_name_in_two_folders_is_told_apart_without_the_label(
    tmp_path: Path, make_site: Make, plan: Any
) -> None:
    for name in ("well/2.png", "well/3.png", "ill/3.png"):
        png(tmp_path / "x" / name, grey(1))
    (tmp_path / "x" / "well" / "3.png").write_bytes(b"4711")
    with pytest.raises(InvalidInput) as caught:
        read_site_data(make_site(tmp_path, "images", "x"), plan)
    below = sorted((tmp_path / "x").glob("*/*.png"))
    place = below.index(tmp_path / "x" / "well" / "3.png") + 1
    assert f'"3.png" (file {place} of 3 in sorted order)' in caught.value.message()
    assert "well" not in caught.value.message()
    (tmp_path / "x" / "labels.csv").write_text(
        "file,outcome\nill/3.png,ill\n\nwell/3.png,well\nwell/2.png,well\n"
    )
    with pytest.raises(InvalidInput, match=r'"3\.png" \(row 4 of the table\): 1 of 3 files'):
        read_site_data(make_site(tmp_path, "images", "x"), plan)
    (tmp_path / "x" / "well" / "3.png").unlink()
    with pytest.raises(InvalidInput, match=r'"3\.png" \(row 4 of the table\)'):
        read_site_data(make_site(tmp_path, "images", "x"), plan)


def bomb(side: int) -> bytes:
    """A PNG that says it has side x side pixels."""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + head
    crc = struct.pack(">I", zlib.crc32(chunk))
    pixels = struct.pack(">I", 9) + b"IDAT" + zlib.compress(b"")[:8]
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(head)) + chunk + crc + pixels


@pytest.mark.parametrize("side", [10_001, 60_000])
def test_a_decompression_bomb_is_not_decoded(side: int) -> None:
    with pytest.raises(BadPicture, match="too many pixels"):
        decoded(bomb(side), (4, 6, 1))


def test_pixels_stay_what_they_are_unless_the_size_differs() -> None:
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    assert np.array_equal(decoded(encoded(colours), (4, 6, 3)), colours)
    one = rng.integers(0, 256, (4, 6), dtype=np.uint8)
    assert np.array_equal(decoded(encoded(one), (4, 6, 1))[:, :, 0], one)
    assert np.array_equal(decoded(encoded(one), (4, 6, 3)), np.repeat(one[:, :, None], 3, axis=2))
    deep = np.array([[0, 257 * 7, 65_535]], dtype=np.uint16)
    assert decoded(encoded(deep), (1, 3, 1)).ravel().tolist() == [0, 7, 255]
    # shrinking averages over the area: a fine checkerboard becomes its mean
    board = np.tile(np.array([[0, 255], [255, 0]], dtype=np.uint8), (16, 16))
    small = decoded(encoded(board), (2, 2, 1))
    assert np.abs(small.astype(int) - 127).max() <= 2
    with pytest.raises(BadPicture, match="channels"):
        fitted(colours, (4, 6, 1))


def test_a_cameras_turn_is_undone() -> None:
    picture = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    stream = io.BytesIO()
    picture.save(stream, "PNG", exif=exif)
    turned = decoded(stream.getvalue(), (4, 6, 1))[:, :, 0]
    assert np.array_equal(turned, np.asarray(picture)[::-1, ::-1])


# --- masks --------------------------------------------------------------------------------------


def test_masks_of_the_same_name(tmp_path: Path, make_site: Make, plan_of: Make) -> None:
    plan = plan_of(bounds={}, image=(4, 6, 1), task="segmentation", classes=("skin", "lesion"))
    mask = grey(0)
    mask[0, 0], mask[3, 5] = 1, 255
    for name in "abcdef":
        png(tmp_path / "pictures" / f"{name}.jpg", grey(50))
        png(tmp_path / "masks" / f"{name}.png", mask)
    data = read_site_data(make_site(tmp_path, "images", "pictures", label="masks"), plan)
    both = np.concatenate([data.train_y, data.test_y])
    assert both.dtype == np.int64 and both.shape == (6, 4, 6)
    assert (both == mask).all()  # 255: not labelled
    assert check(data, model=plan.model, public_records=9) == []
    site = make_site(
        tmp_path, "images", "pictures", label="masks", test_share=0.0,
        labels={"0": "skin", "1": "skin", "255": "lesion"},
    )  # fmt: skip
    assert read_site_data(site, plan).train_y.sum() == 6
    (tmp_path / "masks" / "a.png").unlink()
    png(tmp_path / "masks" / "b.png", grey(7))
    with pytest.raises(InvalidInput, match=r'"a\.png" \(file 1 of 6 in .*1 of 6 masks are not'):
        read_site_data(make_site(tmp_path, "images", "pictures", label="masks"), plan)
    png(tmp_path / "masks" / "a.png", mask)
    with pytest.raises(InvalidInput, match=r'"b\.png" \(file 2 of 6 in .*cannot be read: a pixel'):
        read_site_data(make_site(tmp_path, "images", "pictures", label="masks"), plan)


def test_two_pictures_never_share_a_mask(tmp_path: Path, make_site: Make, plan_of: Make) -> None:
    plan = plan_of(bounds={}, image=(4, 6, 1), task="segmentation", classes=("skin", "lesion"))
    png(tmp_path / "masks" / "a.png", grey(0))
    for name in ("a.png", "a.jpg"):
        png(tmp_path / "pictures" / name, grey(50))
    with pytest.raises(InvalidInput, match="1 of 2 pictures have the mask of another"):
        read_site_data(make_site(tmp_path, "images", "pictures", label="masks"), plan)


def test_a_mask_keeps_whole_values_and_has_no_colours() -> None:
    values = np.repeat(np.array([[0, 3]], dtype=np.uint8), 8, axis=0).repeat(8, axis=1)
    assert set(np.unique(decoded_mask(encoded(values), (5, 7)))) == {0, 3}
    with pytest.raises(BadPicture, match="colours"):
        decoded_mask(encoded(np.zeros((4, 4, 3), dtype=np.uint8)), (4, 4))


# --- DICOM --------------------------------------------------------------------------------------


def dicom(path: Path, values: Any, **tags: Any) -> None:
    """Write a small image as scanners do."""
    pixels = np.asarray(values)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    made.Rows, made.Columns = pixels.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in tags.items():
        setattr(made, name, value)
    made.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, made, enforce_file_format=True)


def whole(data: Any) -> np.ndarray:
    return np.concatenate([data.train_x, data.test_x])


def test_a_window_of_dicom(tmp_path: Path, make_site: Make, plan_of: Make) -> None:
    """Worked by hand: PS3.3 C.11.2.1.2 with center 100, width 51 is linear from 74.5 to 124.5."""
    plan = plan_of(bounds={}, image=(1, 4, 1))
    raw = np.array([[0, 174, 199, 4000]], dtype=np.uint16)  # - 74.5 after the slope below
    dicom(
        tmp_path / "ct" / "a.dcm", raw, RescaleSlope=1, RescaleIntercept=-99.5,
        WindowCenter=[100, 1], WindowWidth=[51, 9], PatientID="p1", StudyDescription="ill",
    )  # fmt: skip
    site = make_site(tmp_path, "dicom", "ct", label="StudyDescription", unit="PatientID")
    data = read_site_data(site, plan)
    # 174 - 99.5 = 74.5 -> 0; 199 - 99.5 = 99.5 -> 127.5 rounds to even
    assert whole(data).ravel().tolist() == [0, 0, 128, 255]
    assert [*data.train_units, *data.test_units] == ["p1"]
    assert check(data, model=plan.model, public_records=9) == []


def test_without_a_window_the_stored_bits_and_monochrome1(
    tmp_path: Path, make_site: Make, plan_of: Make
) -> None:
    plan = plan_of(bounds={}, image=(1, 3, 1))
    raw = np.array([[0, 2047, 4095]], dtype=np.uint16)
    dicom(tmp_path / "a" / "a.dcm", raw, StudyDescription="ill")
    dicom(tmp_path / "b" / "a.dcm", raw, StudyDescription="ill",
          PhotometricInterpretation="MONOCHROME1")  # fmt: skip
    signed = np.array([[-2048, 0, 2047]], dtype=np.int16)
    dicom(tmp_path / "c" / "a.dcm", signed, StudyDescription="ill")
    for folder, expected in (("a", [0, 127, 255]), ("b", [255, 128, 0]), ("c", [0, 128, 255])):
        site = make_site(tmp_path, "dicom", folder, label="StudyDescription")
        assert whole(read_site_data(site, plan)).ravel().tolist() == expected


def test_dicom_labels_in_a_table_and_patients_in_the_tag(
    tmp_path: Path, make_site: Make, plan_of: Make
) -> None:
    plan = plan_of(bounds={}, image=(1, 3, 1))
    for number in range(4):
        values = np.full((1, 3), number, dtype=np.uint16)
        dicom(tmp_path / "ct" / f"{number}.dcm", values, PatientID=f"p{number // 2}")
    lines = [f"{n}.dcm,{'ill' if n else 'well'}" for n in range(4)]
    (tmp_path / "ct" / "labels.csv").write_text("\n".join(["file,outcome", *lines]))
    data = read_site_data(make_site(tmp_path, "dicom", "ct", unit="PatientID"), plan)
    assert sorted([*data.train_units, *data.test_units]) == ["p0", "p0", "p1", "p1"]
    assert sorted([*data.train_y, *data.test_y]) == [0, 0, 0, 1]
    with pytest.raises(InvalidInput, match="4 of 4 files have no tag StudyDescription"):
        read_site_data(
            make_site(tmp_path, "dicom", "ct", label="outcome", unit="StudyDescription"), plan
        )


def test_damaged_dicom_is_named_by_file(tmp_path: Path, make_site: Make, plan_of: Make) -> None:
    plan = plan_of(bounds={}, image=(1, 3, 1))
    dicom(tmp_path / "ct" / "good.dcm", np.zeros((1, 3), dtype=np.uint16))
    raw = (tmp_path / "ct" / "good.dcm").read_bytes()
    (tmp_path / "ct" / "cut.dcm").write_bytes(raw[:-3])
    (tmp_path / "ct" / "text.dcm").write_bytes(b"Patient 4711")
    lines = [f"{name}.dcm,ill" for name in ("good", "cut", "text")]
    (tmp_path / "ct" / "labels.csv").write_text("\n".join(["file,outcome", *lines]))
    with pytest.raises(InvalidInput) as caught:
        read_site_data(make_site(tmp_path, "dicom", "ct"), plan)
    text = caught.value.message()
    assert '"cut.dcm" (row 3 of the table): 1 of 3 files' in text
    assert '"text.dcm" (row 4 of the table): 1 of 3 files' in text
    assert "4711" not in text
