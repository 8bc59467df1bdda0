"""Codes of SNOMED CT for labels: what a viewer or an archive takes a segment for.

An organ is an *Anatomical Structure*; what is wrong in it is a *Morphologically Abnormal Structure* that lies in an
organ. The codes are those of DICOM PS3.16 (CID 4, 7150, 7151, 7166 and others).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nnunet_3dct.formats.label_codes import LabelCode

SNOMED = "SCT"


def _sct(code: str, meaning: str) -> LabelCode:
    return LabelCode(code, SNOMED, meaning)


ANATOMICAL_STRUCTURE = _sct("91723000", "Anatomical Structure")
ABNORMAL_STRUCTURE = _sct("49755003", "Morphologically Abnormal Structure")
TISSUE = _sct("85756007", "Tissue")
SIDES = {"left": _sct("7771000", "Left"), "right": _sct("24028007", "Right")}

# words of a label's name, the longest first that fits
ORGANS = {
    "adrenal gland": _sct("23451007", "Adrenal gland"),
    "adrenal": _sct("23451007", "Adrenal gland"),
    "aorta": _sct("15825003", "Aorta"),
    "artery": _sct("51114001", "Artery"),
    "bladder": _sct("89837001", "Bladder"),
    "bone": _sct("272673000", "Bone"),
    "brain": _sct("12738006", "Brain"),
    "brainstem": _sct("119238007", "Brain Stem"),
    "breast": _sct("76752008", "Breast"),
    "cerebellum": _sct("113305005", "Cerebellum"),
    "colon": _sct("71854001", "Colon"),
    "duodenum": _sct("38848004", "Duodenum"),
    "esophagus": _sct("32849002", "Esophagus"),
    "oesophagus": _sct("32849002", "Esophagus"),
    "eye": _sct("81745001", "Eye"),
    "fat": _sct("256674009", "Fat"),
    "femur": _sct("71341001", "Femur"),
    "gallbladder": _sct("28231008", "Gallbladder"),
    "gall bladder": _sct("28231008", "Gallbladder"),
    "heart": _sct("80891009", "Heart"),
    "hepatic vein": _sct("8993003", "Hepatic vein"),
    "hippocampus": _sct("5366008", "Hippocampus"),
    "hip": _sct("29836001", "Hip"),
    "humerus": _sct("85050009", "Humerus"),
    "inferior vena cava": _sct("64131007", "Inferior vena cava"),
    "kidney": _sct("64033007", "Kidney"),
    "larynx": _sct("4596009", "Larynx"),
    "liver": _sct("10200004", "Liver"),
    "lung": _sct("39607008", "Lung"),
    "lymph node": _sct("59441001", "Lymph Node"),
    "mandible": _sct("91609006", "Mandible"),
    "muscle": _sct("71616004", "Muscle"),
    "organ": _sct("91772007", "Organ"),
    "ovary": _sct("15497006", "Ovary"),
    "pancreas": _sct("15776009", "Pancreas"),
    "pancreatic duct": _sct("69930009", "Pancreatic duct"),
    "parotid gland": _sct("45289007", "Parotid gland"),
    "portal vein": _sct("32764006", "Portal vein"),
    "prostate": _sct("41216001", "Prostate"),
    "rectum": _sct("34402009", "Rectum"),
    "rib": _sct("113197003", "Rib"),
    "sacrum": _sct("54735007", "Sacrum"),
    "scapula": _sct("79601000", "Scapula"),
    "skin": _sct("39937001", "Skin"),
    "skull": _sct("89546000", "Skull"),
    "small bowel": _sct("30315005", "Small intestine"),
    "small intestine": _sct("30315005", "Small intestine"),
    "spinal cord": _sct("2748008", "Spinal cord"),
    "spine": _sct("421060004", "Spine"),
    "spleen": _sct("78961009", "Spleen"),
    "splenic vein": _sct("35819009", "Splenic vein"),
    "sternum": _sct("56873002", "Sternum"),
    "stomach": _sct("69695003", "Stomach"),
    "testis": _sct("40689003", "Testis"),
    "thymus": _sct("9875009", "Thymus"),
    "thyroid": _sct("69748006", "Thyroid"),
    "trachea": _sct("44567001", "Trachea"),
    "ureter": _sct("87953007", "Ureter"),
    "uterus": _sct("35039007", "Uterus"),
    "vein": _sct("29092000", "Vein"),
    "vertebra": _sct("51282000", "Vertebra"),
    "vessel": _sct("59820001", "Blood Vessel"),
}  # fmt: skip
LESIONS = {
    "aneurysm": _sct("85659009", "Aneurysm"),
    "adenocarcinoma": _sct("1187332001", "Adenocarcinoma"),
    "cancer": _sct("108369006", "Neoplasm"),
    "carcinoma": _sct("1187425009", "Carcinoma"),
    "cyst": _sct("367643001", "Cyst"),
    "edema": _sct("79654002", "Edema"),
    "hematoma": _sct("35566002", "Hematoma"),
    "hemorrhage": _sct("50960005", "Hemorrhage"),
    "lesion": _sct("52988006", "Lesion"),
    "mass": _sct("4147007", "Mass"),
    "metastasis": _sct("128462008", "Metastasis"),
    "necrosis": _sct("6574001", "Necrosis"),
    "neoplasm": _sct("108369006", "Neoplasm"),
    "nodule": _sct("27925004", "Nodule"),
    "tumor": _sct("108369006", "Neoplasm"),
    "tumour": _sct("108369006", "Neoplasm"),
}
# adjectives that tell where a lesion lies
PLACES = {
    "cerebral": "brain", "colonic": "colon", "gastric": "stomach", "hepatic": "liver", "pancreatic": "pancreas",
    "prostatic": "prostate", "pulmonary": "lung", "renal": "kidney", "splenic": "spleen",
}  # fmt: skip


@dataclass(frozen=True)
class Meaning:
    """What a segment is.

    Attributes:
        category: organ or lesion, as a code.
        type: the organ, or the kind of lesion.
        region: the organ that a lesion lies in, where that is known.
        side: left or right, where the name tells.
        known: whether the codes say what the label's name says; else they are general ones.
    """

    category: LabelCode
    type: LabelCode
    region: LabelCode | None = None
    side: LabelCode | None = None
    known: bool = True

    @property
    def is_lesion(self) -> bool:
        """Whether it is something in an organ rather than an organ."""
        return self.category == ABNORMAL_STRUCTURE

    @property
    def site(self) -> LabelCode | None:
        """The organ: where a lesion lies, else what it is; None for a general code."""
        site = self.region if self.is_lesion else self.type
        return None if site in (ORGANS["organ"], TISSUE) else site


def meanings(names: Iterable[str], given: Mapping[str, LabelCode] | None = None) -> dict[str, Meaning]:
    """Codes of the labels of a dataset.

    A lesion whose name does not say where it lies is put into the organ of the dataset, if that has a single one.

    Args:
        names: of the labels.
        given: codes that go before those of the table.

    Examples:
        >>> found = meanings(["pancreas", "lesion"])
        >>> found["lesion"].type.meaning, found["lesion"].region.meaning
        ('Lesion', 'Pancreas')
        >>> meanings(["layer_7"])["layer_7"].known
        False
    """
    found = {name: _meaning(name, (given or {}).get(name)) for name in names}
    organs = {meaning.type for meaning in found.values() if meaning.known and not meaning.is_lesion}
    if len(organs) != 1 or ORGANS["organ"] in organs:
        return found
    (organ,) = organs
    return {
        name: Meaning(m.category, m.type, organ, m.side, m.known) if m.is_lesion and m.region is None else m
        for name, m in found.items()
    }


def unknown_labels(found: Mapping[str, Meaning]) -> dict[str, str]:
    """Labels that the table does not know: name -> a sentence that says what is written for them."""
    return {
        name: f"label {name}: no code is known for it, {meaning.type.meaning} ({meaning.type.scheme} "
        f"{meaning.type.code}) is written. label_codes in the model's dataset.json can name one."
        for name, meaning in found.items()
        if not meaning.known
    }


def _meaning(name: str, given: LabelCode | None) -> Meaning:
    words = " ".join(re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()))
    organ, lesion = _find(words, ORGANS), _find(words, LESIONS)
    if organ is None and lesion is not None:
        place = _find(words, {word: ORGANS[organ_name] for word, organ_name in PLACES.items()})
        organ = place
    side = next((code for word, code in SIDES.items() if word in words.split()), None)
    is_lesion = lesion is not None if given is None or given.kind is None else given.kind == "lesion"
    if given is not None:
        lesion = organ_type = LabelCode(given.code, given.scheme, given.meaning)
    else:
        organ_type = organ or TISSUE
    if is_lesion:
        return Meaning(ABNORMAL_STRUCTURE, lesion or LESIONS["lesion"], organ, side)
    return Meaning(ANATOMICAL_STRUCTURE, organ_type, None, side, given is not None or organ is not None)


def _find(words: str, table: Mapping[str, LabelCode]) -> LabelCode | None:
    """The entry whose words are all in the name; plurals count too."""
    fitting = [key for key in table if re.search(rf"\b{key}(s|es)?\b", words)]
    return table[max(fitting, key=len)] if fitting else None
