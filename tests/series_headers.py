"""Headers of series as scanners write them, and what each series is.

A row is ``(description, how it was measured, what it is)``. ``HELD_OUT`` was written before the rules were, and the
rules were not tuned on it until it had been counted once.
"""

from segtool.formats.dicom.facts import SeriesFacts

SILENT: dict[str, object] = {}
SE_T1: dict[str, object] = {"scanning_sequence": ("SE",), "acquisition_type": "2D", "te": 12, "tr": 550, "fa": 90}
SE_T1_3D: dict[str, object] = {"scanning_sequence": ("SE",), "acquisition_type": "3D", "te": 11, "tr": 700, "fa": 120}
T1_FLAIR: dict[str, object] = {
    "scanning_sequence": ("SE", "IR"),
    "acquisition_type": "2D",
    "te": 9.5,
    "tr": 2200,
    "ti": 860,
    "fa": 111,
}
MPRAGE: dict[str, object] = {
    "scanning_sequence": ("GR", "IR"),
    "sequence_variant": ("SK", "SP", "MP"),
    "acquisition_type": "3D",
    "te": 2.3,
    "tr": 1900,
    "ti": 900,
    "fa": 9,
}
BRAVO: dict[str, object] = {
    "scanning_sequence": ("GR",),
    "sequence_variant": ("SS", "SP", "SK"),
    "acquisition_type": "3D",
    "te": 3.1,
    "tr": 8.2,
    "ti": 450,
    "fa": 12,
}
TFE: dict[str, object] = {
    "scanning_sequence": ("GR",),
    "sequence_variant": ("MP",),
    "acquisition_type": "3D",
    "te": 3.7,
    "tr": 8.1,
    "fa": 8,
}
VIBE: dict[str, object] = {
    "scanning_sequence": ("GR",),
    "sequence_variant": ("SP",),
    "acquisition_type": "3D",
    "te": 2.4,
    "tr": 5.5,
    "fa": 10,
}
FLASH_2D: dict[str, object] = {
    "scanning_sequence": ("GR",),
    "sequence_variant": ("SP",),
    "acquisition_type": "2D",
    "te": 2.5,
    "tr": 250,
    "fa": 70,
}
TSE_T2: dict[str, object] = {
    "scanning_sequence": ("SE",),
    "sequence_variant": ("SK", "SP"),
    "acquisition_type": "2D",
    "te": 100,
    "tr": 5000,
    "fa": 150,
}
TSE_T2_3D: dict[str, object] = {
    "scanning_sequence": ("SE",),
    "acquisition_type": "3D",
    "te": 408,
    "tr": 3200,
    "fa": 120,
}
TSE_PD: dict[str, object] = {"scanning_sequence": ("SE",), "acquisition_type": "2D", "te": 14, "tr": 3000, "fa": 150}
FLAIR_2D: dict[str, object] = {
    "scanning_sequence": ("SE", "IR"),
    "acquisition_type": "2D",
    "te": 120,
    "tr": 9000,
    "ti": 2500,
    "fa": 150,
}
FLAIR_3D: dict[str, object] = {
    "scanning_sequence": ("SE", "IR"),
    "acquisition_type": "3D",
    "te": 388,
    "tr": 5000,
    "ti": 1800,
    "fa": 120,
}
STIR: dict[str, object] = {
    "scanning_sequence": ("SE", "IR"),
    "acquisition_type": "2D",
    "te": 40,
    "tr": 4500,
    "ti": 160,
    "fa": 150,
}
GRE_T2S: dict[str, object] = {"scanning_sequence": ("GR",), "acquisition_type": "2D", "te": 20, "tr": 650, "fa": 20}
SWI: dict[str, object] = {"scanning_sequence": ("GR",), "acquisition_type": "3D", "te": 20, "tr": 28, "fa": 15}
TOF: dict[str, object] = {"scanning_sequence": ("GR",), "acquisition_type": "3D", "te": 3.4, "tr": 22, "fa": 18}
EPI_DWI: dict[str, object] = {
    "scanning_sequence": ("EP", "SE"),
    "acquisition_type": "2D",
    "te": 80,
    "tr": 6000,
    "b": 1000.0,
    "fa": 90,
}
EPI_PWI: dict[str, object] = {
    "scanning_sequence": ("EP", "GR"),
    "acquisition_type": "2D",
    "te": 30,
    "tr": 1500,
    "fa": 90,
}
AGENT: dict[str, object] = {"agent": "Gadovist"}
NO_AGENT: dict[str, object] = {"agent": "NONE"}

_SHORT = {
    "te": "echo_time_ms",
    "tr": "repetition_time_ms",
    "ti": "inversion_time_ms",
    "fa": "flip_angle_degrees",
    "b": "diffusion_b_value",
    "agent": "contrast_agent",
    "protocol": "protocol_name",
    "type": "image_type",
    "body": "body_part",
    "name": "sequence_name",
}

NOTHING = ""
"""What no rule knows, or knows for two things at once."""

Row = tuple[str, dict[str, object], str]


def facts(description: str = "", measured: dict[str, object] | None = None, **more: object) -> SeriesFacts:
    """The header of a series; ``measured`` is one of the constants above, or several joined."""
    values = {_SHORT.get(key, key): value for key, value in ((measured or {}) | more).items()}
    base = {
        "modality": "MR",
        "series_description": description,
        "size": (256, 256),
        "image_type": ("ORIGINAL", "PRIMARY"),
    }
    return SeriesFacts(**(base | values))  # type: ignore[arg-type]  # rows are data


HELD_OUT: list[Row] = [
    ("t1_mprage_sag_p2_iso_KM", MPRAGE, "t1ce"),
    ("AX T1 SE GD FS", SE_T1, "t1ce"),
    ("sT1W_3D_TFE_CLEAR", TFE, "t1"),
    ("3D T1 TFE +C", TFE | AGENT, "t1ce"),
    ("T1 AX SIN CONTRASTE", SE_T1, "t1"),
    ("T1 AX CON GADOLINIO", SE_T1, "t1ce"),
    ("AX T1 SE SANS INJ", SE_T1 | AGENT, "t1"),
    ("3D T1 GADO", BRAVO, "t1ce"),
    ("t1_se_tra_nativ", SE_T1, "t1"),
    ("t1_se_tra nach KM", SE_T1 | AGENT, "t1ce"),
    ("t1_tse_cor o. KM", SE_T1, "t1"),
    ("T1W/SE ASSIALE MDC", SE_T1, "t1ce"),
    ("T1W/SE SENZA MDC", SE_T1, "t1"),
    ("AX T1 POST OP PRE GAD", SE_T1, "t1"),
    ("Ax T1 FLAIR POST", T1_FLAIR | AGENT, "t1ce"),
    ("Ax T1 FLAIR", T1_FLAIR | NO_AGENT, "t1"),
    ("AX FLAIR", T1_FLAIR, "t1"),
    ("AX T2 FLAIR FS", FLAIR_2D, "flair"),
    ("AX T2 FLAIR FS POST", FLAIR_2D | AGENT, "flair"),
    ("SAG 3D CUBE FLAIR +C", FLAIR_3D | AGENT, "flair"),
    ("t2_tirm_tra_dark-fluid", FLAIR_2D, "flair"),
    ("t2_space_da-fl_sag_p2_iso", FLAIR_3D, "flair"),
    ("VISTA FLAIR 3D", FLAIR_3D, "flair"),
    ("AX T2 PROPELLER", TSE_T2 | AGENT, "t2"),
    ("T2W_TSE", TSE_T2, "t2"),
    ("t2_blade_tra", TSE_T2, "t2"),
    ("SAG CUBE T2", TSE_T2_3D, "t2"),
    ("T2* GRE", GRE_T2S, "t2star"),
    ("t2_fl2d_tra_hemo", GRE_T2S, "t2star"),
    ("SWI_Images", SWI, "swi"),
    ("mIP_Images(SW)", SWI, "swi"),
    ("ep2d_diff_3scan_trace_p2_ADC", EPI_DWI, "adc"),
    ("ep2d_diff_3scan_trace_p2_TRACEW", EPI_DWI, "dwi"),
    ("Apparent Diffusion Coefficient (mm2/s)", SILENT, "adc"),
    ("DWI b1000 AX", EPI_DWI, "dwi"),
    ("ep2d_perf_p2", EPI_PWI | AGENT, "perfusion"),
    ("TOF_3D_multi-slab", TOF, "angiography"),
    ("AX 3D TOF COW", TOF, "angiography"),
    ("AX PD TSE", TSE_PD, "pd"),
    ("AX DP/T2", TSE_PD, "pd"),
    ("AX DP/T2", TSE_T2, "t2"),
    ("STIR COR", STIR, "stir"),
    ("", MPRAGE, "t1"),
    ("", MPRAGE | AGENT, "t1ce"),
    ("", TSE_T2, "t2"),
    ("", FLAIR_3D | AGENT, "flair"),
    ("Localizer", FLASH_2D, "localizer"),
    ("SUB T1 POST-PRE", SE_T1, "subtraction"),
    ("Sag 3D", SILENT, NOTHING),
    ("t1_vibe_dixon_tra_opp", VIBE, "dixon"),
    ("T1 PHASE CONTRAST VENOGRAM", TOF, "angiography"),
    ("AXIAL POST", SE_T1, "t1ce"),
]

TUNED_ON: list[Row] = [
    # Siemens
    ("t1_mprage_tra_p2_iso", MPRAGE, "t1"),
    ("t1_mprage_sag_p2_iso", MPRAGE | AGENT, "t1ce"),
    ("t1_mpr_ns_sag_pre", MPRAGE | AGENT, "t1"),
    ("t1_mpr_ns_sag_post", MPRAGE, "t1ce"),
    ("MPRAGE +C", MPRAGE, "t1ce"),
    ("VIBE +C", VIBE, "t1ce"),
    ("t1_vibe_fs_tra_KM", VIBE, "t1ce"),
    ("t1_fl2d_tra", FLASH_2D, "t1"),
    ("t1_fl3d_sag_iso", VIBE, "t1"),
    ("t1_space_sag_fs_KM", SE_T1_3D, "t1ce"),
    ("t1_se_tra_320", SE_T1, "t1"),
    ("T1 SE post Gd", SE_T1, "t1ce"),
    ("t1_tse_dixon_tra_W", SE_T1, "t1"),
    ("t1_vibe_dixon_tra_F", VIBE, "dixon"),
    ("t2_tse_tra_512", TSE_T2, "t2"),
    ("t2_tse_tra_512 nach KM", TSE_T2 | AGENT, "t2"),
    ("t2_space_sag_iso", TSE_T2_3D, "t2"),
    ("t2_spc_da-fl_irprep_sag", FLAIR_3D, "flair"),
    ("t2_space_dark-fluid_sag_p2_iso_KM", FLAIR_3D | AGENT, "flair"),
    ("t2_tirm_cor_fs", STIR, "stir"),
    ("pd+t2_tse_tra", TSE_PD, "pd"),
    ("pd+t2_tse_tra", TSE_T2, "t2"),
    ("Pha_Images", SWI, "swi"),
    ("Mag_Images", SWI, "swi"),
    ("resolve_4scan_trace_tra_ADC", EPI_DWI, "adc"),
    ("RESOLVE DIFF", EPI_DWI, "dwi"),
    ("relCBV", EPI_PWI, "perfusion"),
    ("gre_field_mapping", GRE_T2S, "fieldmap"),
    ("AAHead_Scout_64ch-head-coil", VIBE, "localizer"),
    ("t1_mp2rage_sag_UNI_Images", MPRAGE, "t1"),
    ("t1_mp2rage_sag_INV1", MPRAGE, "map"),
    ("t1_mp2rage_sag_T1_Images", MPRAGE, "map"),
    ("PhoenixZIPReport", SILENT, "localizer"),
    # GE
    ("BRAVO +C", BRAVO, "t1ce"),
    ("Sag BRAVO", BRAVO, "t1"),
    ("IR-FSPGR", BRAVO, "t1"),
    ("SPGR PRE", VIBE, "t1"),
    ("AX FSPGR 3D +C", BRAVO, "t1ce"),
    ("Ax T1 FLAIR +C", T1_FLAIR, "t1ce"),
    ("OAx T1 FSE", SE_T1, "t1"),
    ("AXIAL T1 POST-CONTRAST", SE_T1 | AGENT, "t1ce"),
    ("AXT1POST", SE_T1, "t1ce"),
    ("SagT1 pre", SE_T1, "t1"),
    ("AX T1 W/CONTRAST", SE_T1, "t1ce"),
    ("AX T1 W/O CONTRAST", SE_T1, "t1"),
    ("AX T1 WITHOUT CONTRAST", SE_T1 | AGENT, "t1"),
    ("AX T1 NON-CONTRAST", SE_T1 | AGENT, "t1"),
    ("Ax T2 frFSE", TSE_T2, "t2"),
    ("Ax FRFSE FS", TSE_T2, "t2"),
    ("Ax T2 FLAIR", FLAIR_2D, "flair"),
    ("AX FLAIR +C", FLAIR_2D | AGENT, "flair"),
    ("Sag 3D T2 FLAIR CUBE", FLAIR_3D, "flair"),
    ("SAG CUBE", FLAIR_3D, "flair"),
    ("SAG CUBE", SE_T1_3D, "t1"),
    ("Ax SWAN", SWI, "swi"),
    ("Ax T2* GRE", GRE_T2S, "t2star"),
    ("Ax GRE", GRE_T2S, "t2star"),
    ("MERGE", GRE_T2S, "t2star"),
    ("Ax DWI 1000b", EPI_DWI, "dwi"),
    ("ADC (10^-6 mm2/s)", EPI_DWI, "adc"),
    ("AX PERFUSION", EPI_PWI, "perfusion"),
    ("3D ASL (non-contrast)", SILENT, "perfusion"),
    ("3 PLANE LOC", FLASH_2D, "localizer"),
    ("Calibration Scan", FLASH_2D, "localizer"),
    ("FIESTA-C", VIBE, "ssfp"),
    ("PROPELLER T2 FLAIR", FLAIR_2D, "flair"),
    # Philips
    ("T1W_3D_TFE", TFE, "t1"),
    ("T1W_3D_TFE post", TFE, "t1ce"),
    ("sT1W_SE_gado", SE_T1, "t1ce"),
    ("eT1 GD", SE_T1, "t1ce"),
    ("T1W_FFE", FLASH_2D, "t1"),
    ("WIP T1W_SE SENSE", SE_T1, "t1"),
    ("T1W_IR_TSE", T1_FLAIR, "t1"),
    ("T2W_FLAIR_SPAIR", FLAIR_2D, "flair"),
    ("FLAIR_longTR", FLAIR_2D, "flair"),
    ("3D_Brain_VIEW_FLAIR", FLAIR_3D, "flair"),
    ("T2W_DRIVE", TSE_T2, "t2"),
    ("T2W_FFE", GRE_T2S, "t2star"),
    ("T2_FFE_hemo", GRE_T2S, "t2star"),
    ("SWIp", SWI, "swi"),
    ("VEN_BOLD", SWI, "swi"),
    ("DWI_SSh", EPI_DWI, "dwi"),
    ("dADC", EPI_DWI, "adc"),
    ("Survey", FLASH_2D, "localizer"),
    ("SmartBrain", VIBE, "localizer"),
    ("s3DI_MC_HR", TOF, "angiography"),
    ("B-FFE", VIBE, "ssfp"),
    ("PDW_TSE", TSE_PD, "pd"),
    # Canon, Toshiba, Hitachi
    ("SE T1 AX", SE_T1, "t1"),
    ("FSE2D T2 AX", TSE_T2, "t2"),
    ("FLAIR AX 2D", FLAIR_2D, "flair"),
    ("T1 RF-Spoiled SARGE CE", VIBE, "t1ce"),
    ("isoFSE FLAIR", FLAIR_3D, "flair"),
    # Languages
    ("T1 TSE SAG MIT KONTRASTMITTEL", SE_T1, "t1ce"),
    ("T1 TSE SAG OHNE KONTRASTMITTEL", SE_T1, "t1"),
    ("T1 tra vor KM", SE_T1, "t1"),
    ("T1 tra +KM", SE_T1, "t1ce"),
    ("T1 tra n.KM", SE_T1, "t1ce"),
    ("T1 SE AX PdC", SE_T1, "t1ce"),
    ("AX T1 AVANT INJECTION", SE_T1, "t1"),
    ("AX T1 APRÈS INJECTION", SE_T1, "t1ce"),
    ("SAG T1 AVEC GADO", SE_T1, "t1ce"),
    ("AX T1 C/C", SE_T1, "t1ce"),
    ("AX T1 S/C", SE_T1, "t1"),
    ("T1 AX SIMPLE", SE_T1, "t1"),
    ("T1 AX CONTRASTADO", SE_T1, "t1ce"),
    ("T1 AX PÓS CONTRASTE", SE_T1, "t1ce"),
    ("T1 AX SEM CONTRASTE", SE_T1, "t1"),
    ("T1 SE DOPO MDC", SE_T1, "t1ce"),
    ("T1 TRA NA CONTRAST", SE_T1, "t1ce"),
    ("T1 TRA ZONDER CONTRAST", SE_T1, "t1"),
    ("T1 TRA PO KONTRASCIE", SE_T1, "t1ce"),
    ("T1 TRA BEZ KONTRASTU", SE_T1, "t1"),
    ("T1 TRA UTEN KONTRAST", SE_T1, "t1"),
    ("AX T1 IVKM SONRASI", SE_T1, "t1ce"),
    # Traps
    ("T1 PRE-OP STEALTH +C", MPRAGE, "t1ce"),
    ("T1 POSTOP", SE_T1, "t1"),
    ("T2 POSTERIOR FOSSA", TSE_T2, "t2"),
    ("T1 POSTERIOR FOSSA", SE_T1, "t1"),
    ("T1 W/WO CONTRAST", SE_T1 | NO_AGENT, "t1"),
    ("T1 -C", SE_T1, "t1"),
    ("T1 C+", SE_T1, "t1ce"),
    ("AX T1 DELAYED", SE_T1 | AGENT, "t1ce"),
    ("T1 MAP", SILENT, "map"),
    ("T2 C-SPINE", TSE_T2, "spine"),
    ("T1 SAG C SPINE POST", SE_T1, "spine"),
    ("T1 SUBTRACTION", SE_T1, "subtraction"),
    ("DYNAMIC T1 +C", VIBE, "perfusion"),
    ("T1_MPR_COR_reformat", MPRAGE, "t1"),
    ("MIP T1 POST", SILENT, "projection"),
    ("DIR_3D", FLAIR_3D, "dir"),
    ("PSIR", T1_FLAIR, "psir"),
    ("MRS PRESS", SILENT, "spectroscopy"),
    ("fMRI_rest", EPI_PWI, "fmri"),
    ("WM AX", SILENT, NOTHING),
    # Headers without any text
    ("", SE_T1, "t1"),
    ("", SE_T1 | AGENT, "t1ce"),
    ("", SE_T1 | NO_AGENT, "t1"),
    ("", FLAIR_2D, "flair"),
    ("", T1_FLAIR, "t1"),
    ("", BRAVO, "t1"),
    ("", TFE, "t1"),
    ("", TSE_T2_3D, "t2"),
    ("", TSE_PD, "pd"),
    ("", STIR, "stir"),
    ("", GRE_T2S, "t2star"),
    ("", EPI_DWI, "dwi"),
    ("", SILENT, NOTHING),
    ("", AGENT, NOTHING),
    # What the protocol says where the description says nothing
    ("AXIAL", SE_T1 | {"protocol": "T1 SE"}, "t1"),
    ("AXIAL", {"protocol": "T2 FLAIR"}, "flair"),
    ("AX T1", SE_T1 | {"protocol": "BRAIN W+WO CONTRAST"}, "t1"),
    ("AX T2", TSE_T2 | {"protocol": "T1 FLAIR TUMOR"}, "t2"),
    ("SAG", MPRAGE | {"protocol": "t1_mprage_KM"}, "t1ce"),
    # Image types
    ("T1 tra", SE_T1 | {"type": ("DERIVED", "PRIMARY", "SUBTRACTION")}, "subtraction"),
    ("DWI", EPI_DWI | {"type": ("DERIVED", "PRIMARY", "DIFFUSION", "ADC")}, "adc"),
    ("Ax LAVA", VIBE | {"type": ("DERIVED", "PRIMARY", "DIXON", "FAT")}, "dixon"),
    ("HEAD", {"modality": "CT"}, "ct"),
    ("T1 SAG", SE_T1 | {"body": "CSPINE"}, "spine"),
    ("T2 GRE", GRE_T2S | {"type": ("ORIGINAL", "PRIMARY", "P", "ND")}, "phase"),
    # Names of sequences
    ("", {"name": "*tfl3d1_16ns"}, "t1"),
    ("", {"name": "*tfl3d1_16ns", "agent": "Dotarem"}, "t1ce"),
    ("", {"name": "*ep_b1000#1"}, "dwi"),
    ("", {"name": "*swi3d1r"}, "swi"),
    ("", VIBE | {"name": "*fi3d1r"}, "angiography"),
    ("", GRE_T2S | {"name": "*fm2d2r"}, "fieldmap"),
]

MET_IN_PUBLIC: list[Row] = [
    # Descriptions that public protocols, converters' settings and viewers name; added after the rules were written.
    ("t1_mprage_sag_iso", SILENT, "t1"),
    ("t2_space_sag_iso_edinburgh", SILENT, "t2"),
    ("t2_qtse_cor", SILENT, "t2"),
    ("t2_tse_tra_1mm_MCRIB_p2", SILENT, "t2"),
    ("t2_space_dark-fluid_sag_iso", SILENT, "flair"),
    ("SpinEchoFieldMap_AP", SILENT, "fieldmap"),
    ("rfMRI_REST_PA_SBRef", SILENT, "fmri"),
    ("dMRI_dir106_PA_2x2x2_ColFA", SILENT, "anisotropy"),
    ("dMRI_dir106_AP_2x2x2", SILENT, "dwi"),
    ("AAHead_Scout_64ch-head-coil_MPR_sag", SILENT, "localizer"),
    ("MPRAGE GRAPPA2(adni)", SILENT, "t1"),
    ("SAG T1 3DMPRAGE", SILENT, "t1"),
    ("MPRAGE w/ GRAPPA", SILENT, "t1"),
    ("32_FLAIR_1mm_ipat2", SILENT, "flair"),
    ("T2w_SPC", SILENT, "t2"),
    ("T1_p2_1mm_fov256_sag_TI_880", SILENT, "t1"),
    ("sT1W_1mm_3D_32ch", SILENT, "t1"),
    ("T1 MPRAGE AXIAL", SILENT, "t1"),
    ("T2_3D", SILENT, "t2"),
    ("ax T1 FSPGR 3D KM", SILENT, "t1ce"),
    ("AI_T1 3D sag KM", SILENT, "t1ce"),
    ("AX T1 utan Gd", SILENT, "t1"),
    ("AX T1 ej Gd", SILENT, "t1"),
    ("AX T1 +K", SILENT, "t1ce"),
    ("AX T1 med Gd", SILENT, "t1ce"),
    ("AX T1 +Gd pre-contrast", SILENT, "t1"),
    ("AX T1 C+ SPAIR", SILENT, "t1ce"),
    ("COR T1 SPIR", SILENT, "t1"),
    ("COR TIRM", SILENT, "stir"),
    ("AX T2 FATSAT", SILENT, "t2"),
    ("3D TOF MRA CIRCLE OF WILLIS", SILENT, "angiography"),
    ("AX DWI ADC MAP", SILENT, "adc"),
    ("T1 AXIAL POST GAD", SILENT, "t1ce"),
    ("T1 Axial Pre-Contrast", SILENT, "t1"),
    ("Head_Neck C+ 2.0mm", {"modality": "CT"}, "ct"),
    ("T1 BRAVO post-contrast", SILENT, "t1ce"),
    ("t1_ce_ax", SILENT, "t1ce"),
    ("Sa2RAGE", SILENT, "map"),
    ("MEMP2RAGE UNI", SILENT, "t1"),
    ("EPI-PA field mapping", SILENT, "fieldmap"),
    ("T2W_FLAIR AX CLEAR", SILENT, "flair"),
    ("anat-T1w", SILENT, "t1"),
]


WRITTEN_LATER: list[Row] = [
    # More of the same kind, written when the rules were thought to be done.
    ("SAG T1 SE", SILENT, "t1"),
    ("COR T1 POST FS", SILENT, "t1ce"),
    ("AX T1 3D MPR POST", SILENT, "t1ce"),
    ("T1 MPR TRA", SILENT, "t1"),
    ("3D SAG T1 BRAVO FS POST", SILENT, "t1ce"),
    ("AXIAL T1 STEALTH W", SILENT, "t1"),
    ("AX T1 BRAINLAB POST", SILENT, "t1ce"),
    ("Ax T2 FLAIR Fat Sat", SILENT, "flair"),
    ("FLAIR AXIAL", SILENT, "flair"),
    ("Ax FLAIR Propeller", SILENT, "flair"),
    ("SAG FLAIR 3D SPACE", SILENT, "flair"),
    ("t2_flair_tra_320_p2", SILENT, "flair"),
    ("T2 AX FSE", SILENT, "t2"),
    ("AX FSE T2", SILENT, "t2"),
    ("Ax T2 FSE FS", SILENT, "t2"),
    ("AX T2 BLADE", SILENT, "t2"),
    ("AXIAL PD/T2", TSE_T2, "t2"),
    ("AX T2 DE", SILENT, "t2"),
    ("AX DE", TSE_PD, "pd"),
    ("PERFUSION (RAW)", SILENT, "perfusion"),
    ("T1 PERFUSION DCE", SILENT, "perfusion"),
    ("ASSET CAL", SILENT, "localizer"),
    ("LOC", SILENT, "localizer"),
    ("3-PL LOC", SILENT, "localizer"),
    ("scano", SILENT, "localizer"),
    ("DTI_64", SILENT, "dwi"),
    ("AX DTI 25 DIR", EPI_DWI, "dwi"),
    ("DTI 30 dir", SILENT, "dwi"),
    ("ep2d_diff_64dir", SILENT, "dwi"),
    ("Ax DWI_ADC", SILENT, "adc"),
    ("ISO: Ax DWI", SILENT, "dwi"),
    ("AVDC: Ax DWI", SILENT, "adc"),
    ("FA: 25 DIR DTI", SILENT, "anisotropy"),
    ("Exponential Apparent Diffusion Coefficient", SILENT, "adc"),
    ("T1_SE_TRA_FS_KM", SE_T1, "t1ce"),
    ("t1_se_cor_fs +KM", SE_T1, "t1ce"),
    ("t1_fl3d_tra_dynaVIEWS_KM", VIBE, "t1ce"),
    ("T1 3D TRA STEREO KM", SILENT, "t1ce"),
    ("MPRAGE KM stereotaktisch", SILENT, "t1ce"),
    ("T2W FLAIR TRA KM", SILENT, "flair"),
    ("W T1 SE TRA", SILENT, "t1"),
    ("AX T1 PRE CONTRAST", SILENT, "t1"),
    ("AX T1 PRECONTRAST FS", SILENT, "t1"),
    ("+C AX T1", SILENT, "t1ce"),
    ("Ax T1+C", SILENT, "t1ce"),
    ("Cor +C T1 FS", SILENT, "t1ce"),
    ("+C Sag T1 CUBE", SILENT, "t1ce"),
    ("AX T1C", SILENT, "t1ce"),
    ("T1WI+C", SILENT, "t1ce"),
    ("T1WI", SILENT, "t1"),
    ("T2WI", SILENT, "t2"),
    ("T2WI-FLAIR", SILENT, "flair"),
    ("T1FLAIR", T1_FLAIR, "t1"),
    ("OAx T1 MEMP +C", SE_T1, "t1ce"),
    ("t1_fse_tra+c", SILENT, "t1ce"),
    ("T1 3D FFE C", SILENT, "t1"),
    ("sT1TFE gd", SILENT, "t1ce"),
    ("3D-T1FFE+GD", SILENT, "t1ce"),
    ("T1 TRA C+", SILENT, "t1ce"),
    ("Ax 3D T1 MPRAGE  Gd", SILENT, "t1ce"),
    ("T1 tfe sag 3d na gd", SILENT, "t1ce"),
    ("T1 voor gd", SILENT, "t1"),
    ("T1 FS post KM tra", SILENT, "t1ce"),
    ("T1 ANTES DE CONTRASTE", SILENT, "t1"),
    ("AX T1 DESPUES DE CONTRASTE", SILENT, "t1ce"),
    ("AX T1 CE FAT SAT", SILENT, "t1ce"),
    ("T1 SE AX SC", SILENT, "t1"),
    ("AX T1 S/GD", SILENT, "t1"),
    ("AX T1 C/GD", SILENT, "t1ce"),
    ("AXIAL T1 IV", SILENT, "t1ce"),
    ("AX T1 I+", SILENT, "t1ce"),
    ("AX T1 I-", SILENT, "t1"),
    ("HEAD/T1W/SAG", SILENT, "t1"),
    ("Brain T1-weighted axial", SILENT, "t1"),
    ("T1-gradient echo sag", VIBE, "t1"),
    ("T1 GRE SAG", VIBE, "t1"),
    ("T2 GRE", GRE_T2S, "t2star"),
    ("AX GRE T2*", SILENT, "t2star"),
    ("Ax T2*", SILENT, "t2star"),
    ("AX T2 STAR", SILENT, "t2star"),
    ("T2 HEMO", SILENT, "t2star"),
    ("AX MPGR", GRE_T2S, "t2star"),
    ("3D T2 SPACE IAC", SILENT, "t2"),
    ("Perfusion_Weighted T2*", EPI_PWI, "perfusion"),
    ("ep2d_pace_dynt1", SILENT, NOTHING),
    ("T1 mapping MOLLI", SILENT, "map"),
    ("cs_T1W_3D_TFE", SILENT, "t1"),
    ("T1 Dark-fluid tra", T1_FLAIR, "t1"),
    ("t1_tirm_tra_dark-fluid", T1_FLAIR, "t1"),
    ("t1_tirm_tra_dark-fluid_KM", T1_FLAIR, "t1ce"),
    ("T1W_IR", T1_FLAIR, "t1"),
    ("IR T1 tra", T1_FLAIR, "t1"),
    ("Ax T2 FLAIR POST GAD", SILENT, "flair"),
    ("CISS 3D", SILENT, "ssfp"),
    ("Screen Save", SILENT, "localizer"),
    ("Processed Images", SILENT, NOTHING),
    ("AX T1 REFORMAT POST", SILENT, "t1ce"),
    ("NOT DIAGNOSTIC: T1 POST", SILENT, "t1ce"),
    ("T1 POST GRASP", SILENT, "t1ce"),
    ("Axial T2 post contrast", SILENT, "t2"),
    ("SE T1 SAG SUBTRACAO", SILENT, "subtraction"),
    ("T1 fs post right orbit", SILENT, "t1ce"),
    ("CT HEAD W/O", SILENT, NOTHING),
    ("synthetic T1", SILENT, "t1"),
    ("T2 MAP", SILENT, "map"),
    ("MPRAGE_post_ND", SILENT, "t1ce"),
    ("t1_mprage_tra_p2_iso_1.0_km_MPR_cor", SILENT, "t1ce"),
    ("t2_tse_dixon_tra_W", SILENT, "t2"),
    ("T1 in-phase", SILENT, "t1"),
    ("dark fluid", SILENT, "flair"),
    ("T2 darkfluid", SILENT, "flair"),
    ("3D FLAIR VISTA SENSE", SILENT, "flair"),
    ("T2 FSE-XL", SILENT, "t2"),
    ("Routine brain", TSE_T2, "t2"),
]


_IMAGE_TYPES = {
    "siemens": r"ORIGINAL\PRIMARY\M\ND\NORM",
    "ge": r"ORIGINAL\PRIMARY\OTHER",
    "philips": r"ORIGINAL\PRIMARY\M_SE\M\SE",
    "adc": r"DERIVED\PRIMARY\DIFFUSION\ADC\ND\NORM",
    "mp": r"DERIVED\SECONDARY\MPR\CSA MPR\\CSAPARALLEL\M\ND\NORM",
    "uni": r"DERIVED\PRIMARY\M\ND\UNI",
    "map": r"DERIVED\PRIMARY\T1 MAP\ND",
    "combined": r"DERIVED\SECONDARY\COMBINED",
    "reformat": r"DERIVED\SECONDARY\REFORMATTED\AVERAGE",
}
_WHOLE = r"""
t1|t1_mpr_sag_p2_iso|=|*tfl3d1_ns|GR\IR|SP\MP|IR|3D|2.98|1900|900|9||siemens
t1ce|AX T1 POST|=|*se2d1|SE|OSP|FC|2D|10|500||90|MAGNEVIST|siemens
t1ce|AXIAL T1 FLOW COMP POST|=|*fl3d1|GR|SP\OSP|FC|3D|4.76|11||20||siemens
t1|AXIAL T1|=|*fl2d1|GR|SP||2D|2.46|250||70||siemens
flair|AXIAL FLAIR|=|*tir2d1_16|SE\IR|SK\SP\MP|IR|2D|140|9420|2500|170||siemens
t2|AXIAL T2|=|*tse2d1_15|SE|SK\SP\OSP||2D|85|4680||150||siemens
t1ce|t1_mprage_sag_1mm iso POST|t1_mprage_sag_1mm iso|*tfl3d1_16ns|GR\IR|SK\SP\MP|IR|3D|2.32|2300|900|8||siemens
t1ce|MPRAGE POST TUMOR|=|*tfl3d1|GR\IR|SP\MP\OSP|IR\PFP|3D|3.1|1760|950|15|MULTIHANCE|siemens
t1|Mprage|=|*tfl3d1|GR\IR|SP\MP|IR|3D|3.1|1760|950|15||siemens
adc|ep2d_diff_3scan_trace_p2_ADC|ep2d_diff_3scan_trace_p2|*ep_b0_1000|EP|SK\SP|PFP\FS|2D|94|5100||90||adc
perfusion|ep2d_perf|=|*epfid2d1_128|EP|SK|FS|2D|45|2000||90|MAGNEVIST|siemens
perfusion|relCBV|ep2d_perf|*epfid2d1_128|EP|SK|FS|2D|45|2000||90||DERIVED\PRIMARY\PERFUSION\RELCBV
swi|SWI_Images|swi3d_p2|*swi3d1r|GR|SP|PFP|3D|20|28||15||ORIGINAL\PRIMARY\M\SWI\NORM
swi|mIP_Images(SW)|swi3d_p2|*swi3d1r|GR|SP|PFP|3D|20|28||15||ORIGINAL\PRIMARY\MNIP\NONE
localizer|AAHead_Scout_MPR_tra|AAHead_Scout|*fl3d1_ns|GR|SP||3D|1.37|3.15||8||DERIVED\SECONDARY\MPR\NORM
localizer|localizer|=|*fl2d1|GR|SP\OSP||2D|5|20||40||siemens
angiography|TOF_3D_multi-slab|=|*fi3d1r|GR|SP\MTC\OSP||3D|3.6|21||18||siemens
t2|t2_space_sag_p2_iso|=|*spcR_282ns|SE|SK\SP\OSP|PFP|3D|408|3200||120||siemens
flair|t2_space_dark-fluid_sag_p2_iso|=|*spcir_278ns|SE\IR|SK\SP\MP\OSP|IR\PFP\FS|3D|388|5000|1800|120||siemens
t1ce|t1_space_sag_p2_iso POST GAD|t1_space_sag_p2_iso|*spc3d1rr|SE|SK\SP\OSP|PFP|3D|7.2|600||120|GADAVIST|siemens
t1ce|AX T1 BLADE FS +C|=|*tirB2d1_5|SE\IR|SK\SP\MP\OSP|IR\FS|2D|21|2000|860|130||siemens
t1|t1_tirm_tra_dark-fluid|=|*tir2d1_5|SE\IR|SK\SP\MP|IR|2D|9.3|2000|800|150||siemens
t1|t1_mprage_sag_1mm_MPR_tra|t1_mprage_sag_1mm|*tfl3d1_16ns|GR\IR|SK\SP\MP|IR|3D|2.3|2300|900|8||mp
subtraction|SUB_POST-PRE T1|t1_fl2d_tra|*fl2d1|GR|SP||2D|2.5|250||70||DERIVED\PRIMARY\M\SUB\ND
map|mp2rage_sag_p3_iso_INV1|mp2rage_sag_p3_iso|*tfl3d1_16ns|GR\IR|SK\SP\MP|IR\PFP|3D|2.98|5000|700|4||siemens
t1|mp2rage_sag_p3_iso_UNI_Images|mp2rage_sag_p3_iso|*tfl3d1_16ns|GR\IR|SK\SP\MP|IR\PFP|3D|2.98|5000||4||uni
map|mp2rage_sag_p3_iso_T1_Images|mp2rage_sag_p3_iso|*tfl3d1_16ns|GR\IR|SK\SP\MP|IR\PFP|3D|2.98|5000||4||map
perfusion|ASL_3D_tra_iso|=|tgse3d1_780|EP|SK\SP|PFP\FS|3D|18.5|4600|1990|180||siemens
t2star|t2_fl2d_tra_hemo|=|*fl2d1|GR|SP||2D|25|830||20||siemens
pd|PD+T2_tse_tra|=|*tse2d2_7|SE|SK\SP||2D|12|3500||150||siemens
ssfp|ciss3d_tra_iso|=|*ci3d1r|GR|SS\OSP||3D|2.6|5.7||50||siemens
t1ce|SAG MPRAGE POST Stealth_ND|SAG MPRAGE POST Stealth|*tfl3d1_16ns|GR\IR|SK\SP\MP|IR|3D|2.3|2300|900|8||mp
t1ce|t1_mprage_tra_p2_iso KM|=|*tfl3d1_16ns|GR\IR|SK\SP\MP|IR\PFP|3D|2.67|1800|900|9||siemens
t1ce|t1_se_cor nach KM|t1_se_cor|*se2d1|SE|OSP||2D|8.4|550||90|Gadovist|siemens
t1|t1_se_tra nativ|t1_se_tra|*se2d1|SE|OSP||2D|8.4|550||90||siemens
flair|t2_tirm_tra_dark-fluid|=|*tir2d1_17|SE\IR|SK\SP\MP\OSP|IR|2D|92|9000|2500|150||siemens
t2|t2_tse_tra_448|=|*tse2d1_18|SE|SK\SP\OSP||2D|98|5000||150||siemens
t1ce|T1 MPR tra 3D Navi KM|Navi|*tfl3d1|GR\IR|SP\MP\OSP|IR|3D|3.4|1900|1100|15|Dotarem 15ml|siemens
t2|T2 tra 3mm|t2_tse_tra_320_p2|*tse2d1_11|SE|SK\SP\OSP||2D|87|4200||150||siemens
dwi|Diffusion tra b1000|ep2d_diff|*ep_b1000t|EP|SK\SP|PFP\FS|2D|89|3800||90||ORIGINAL\PRIMARY\DIFFUSION\TRACEW\ND
|Uebersicht|=|*fl2d1|GR|SP\OSP||2D|4|15||40||siemens
t1ce|Rekonstruktion cor KM 3mm|t1_mprage_tra_p2_iso KM|*tfl3d1_16ns|GR\IR|SK\SP\MP|IR\PFP|3D|2.67|1800|900|9|Gadovist|mp
flair|FLAIR cor 4mm|t2_tirm_cor_dark-fluid|*tir2d1_16|SE\IR|SK\SP\MP\OSP|IR|2D|110|8500|2400|150||siemens
t1ce|T1 VIBE fs tra p.i.|t1_vibe_fs_tra|*fl3d1|GR|SP\OSP|FS\PFP|3D|2.4|6.5||12|Gadobutrol|siemens
t1ce|T1 MPRAGE GADO|=|*tfl3d1_16ns|GR\IR|SK\SP\MP|IR|3D|2.5|1700|900|9||siemens
t1|T1 SE sag sans gado|t1_se_sag|*se2d1|SE|OSP||2D|11|480||90||siemens
t1ce|AX T1 SE APRES INJECTION|t1_se_tra|*se2d1|SE|OSP||2D|11|480||90||siemens
t2star|T2* EG AX|t2_fl2d_tra_hemo|*fl2d1|GR|SP||2D|26|800||20||siemens
t1ce|t1_mprage_sag_iso mdc|t1_mprage_sag_iso|*tfl3d1_16ns|GR\IR|SK\SP\MP|IR|3D|2.3|2200|900|8||siemens
t1ce|T1 tra dopo contrasto|t1_tse_tra|*tse2d1_3|SE|SK\SP\OSP||2D|9|600||150||siemens
t1ce|T1 3D CON CIV|t1_mprage_sag|*tfl3d1_16ns|GR\IR|SK\SP\MP|IR|3D|2.3|2200|900|8||siemens
t1|T1 SAG SIN CONTRASTE|t1_se_sag|*se2d1|SE|OSP||2D|9|500||90||siemens
t1ce|T1 AX POS GADOLINIO|t1_se_tra|*se2d1|SE|OSP||2D|9|500||90||siemens
t2|T2 COR TSE CORTES FINOS|t2_tse_cor|*tse2d1_15|SE|SK\SP\OSP||2D|95|4500||150||siemens
t1|Ax T1 FLAIR|BRAIN TUMOR W WO||SE\IR|SK|FAST_GEMS\SEQ_GEMS\FC\TRF_GEMS|2D|9.5|2100|760|111||ge
t1ce|+C Ax T1 FLAIR|BRAIN TUMOR W WO||SE\IR|SK|FAST_GEMS\FC\TRF_GEMS|2D|9.5|2100|760|111||ge
flair|Ax T2 FLAIR|BRAIN TUMOR W WO||SE\IR|SK|FAST_GEMS\TRF_GEMS\FS|2D|120|9002|2250|160||ge
t2|Ax T2 PROPELLER|BRAIN TUMOR W WO||RM|NONE|FAST_GEMS\NPW\TRF_GEMS|2D|102|4600||110||ge
t2|AX FSE T2|BRAIN/8||SE|SK|FAST_GEMS\FC\NPW|2D|104|3200||90||ge
t1ce|AX T1 POST GAD|BRAIN/8||SE|NONE|FC_SLICE_AX_GEMS\FC\SAT_GEMS|2D|14|600||90|OMNISCAN|ge
t1|SAG T1|BRAIN/8||SE|NONE|FC\NPW\SAT_GEMS|2D|14|500||90||ge
t1ce|COR T1 POST|BRAIN/8||SE|NONE|FC\NPW|2D|14|650||90|Magnevist|ge
t1ce|3D AXIAL SPGR POST|VOLUMETRIC||GR|SP\SK|FAST_GEMS\EDR_GEMS|3D|3|25||45||ge
t1|IRSPGR 3D SAG|UCSF TUMOR||GR\IR|SP\SK\MP|FAST_GEMS\ACC_GEMS\IR|3D|3|8.2|450|15||ge
t1ce|Ax BRAVO +C|Stealth||GR|SS\SP\MP\SK|FAST_GEMS\EDR_GEMS\IR|3D|3.2|8.4|450|12|GADAVIST|ge
t1ce|+c Ax T1 Stealth bravo|BRAIN LAB||GR|SS\SP\MP\SK|FAST_GEMS\IR|3D|3.2|8.2|450|12||ge
flair|+c Sag CUBE T2 FLAIR|TUMOR||SE\IR|SK|FAST_GEMS\EDR_GEMS\FS|3D|119|6000|1700|90|GADAVIST|ge
t1ce|+c COR T1 CUBE|TUMOR||SE|SK|FAST_GEMS\FS|3D|13|600||90||ge
flair|AX FLAIR POST|BRAIN W||SE\IR|SK|FAST_GEMS\FC|2D|125|8802|2200|90|MAGNEVIST|ge
flair|FLAIR AXIAL|BRAIN/8||SE\IR|SK|FAST_GEMS|2D|147|10002|2200|90||ge
t2star|AX GRE|BRAIN||GR|SP|FC|2D|20|500||20||ge
dwi|AX DWI 1000b|BRAIN||EP\SE|NONE|EPI_GEMS\PFF|2D|81|10000||90||ge
adc|Apparent Diffusion Coefficient (mm?/s)|BRAIN||EP\SE|NONE|EPI_GEMS\PFF|2D|81|10000||90||combined
swi|Ax SWAN|BRAIN||GR|SS\SK|FAST_GEMS\FC|3D|24|40||15||ge
swi|FILT_PHA: Ax SWAN|BRAIN||GR|SS\SK|FAST_GEMS\FC|3D|24|40||15||ge
localizer|3Plane Loc SSFSE|BRAIN||SE|SK\SS|FAST_GEMS\SS_GEMS|2D|80|1200||90||ge
localizer|ASSET calibration|BRAIN||GR|NONE|FAST_GEMS|2D|2|150||50||ge
perfusion|PERFUSION GRE EPI|BRAIN||EP\GR|SS|EPI_GEMS|2D|40|2000||60|GAD|ge
t1ce|Cor BRAVO Reformat|Stealth||GR|SS\SP\MP\SK|FAST_GEMS\IR|3D|3.2|8.4|450|12|GADAVIST|reformat
angiography|COL:3D TOF COW|MRA||GR|SP|MT\FC|3D|2.7|25||20||DERIVED\SECONDARY\PROJECTION IMAGE\COLLAPSE
pd|AX PD FSE|BRAIN/8||SE|SK|FAST_GEMS\FC|2D|18|2600||90||ge
t2|AX T2 FSE FAT SAT|BRAIN||SE|SK|FAST_GEMS\FS\FC|2D|96|4400||90||ge
t1|AX T1 PRE GAD|BRAIN/8||SE|NONE|FC|2D|14|600||90|MAGNEVIST|ge
t1|AX 3D T1 PRE|RIDER||GR|SP|FAST_GEMS|3D|3.4|9||20||ge
map|AX T1 MAP 10 FLIP|DCE||GR|SP|FAST_GEMS|3D|1.1|4.7||10||ge
perfusion|DCE PERMEABILITY|DCE||GR|SP|FAST_GEMS|3D|1.1|4.7||25|MULTIHANCE|ge
t1|Ax T1 GRE|DTI TUMOR||GR|SP||2D|4|250||75||ge
t1|T1 BRAVO|GAMMA||GR|SS\SP\MP\SK|FAST_GEMS\IR|3D|3.1|8.1|450|12||ge
t1ce|T1 BRAVO GD|GAMMA||GR|SS\SP\MP\SK|FAST_GEMS\IR|3D|3.1|8.1|450|12||ge
t2|CUBE T2|GAMMA||SE|SK|FAST_GEMS|3D|80|2500||90||ge
t1ce|AX T1 IV+|CRANE||SE|NONE||2D|12|550||90||ge
t1ce|OAx T1 FSE fs Gd|CEREBRO||SE|SK|FAST_GEMS\FS|2D|10|600||90||ge
t1ce|3D T1 FSPGR INJ|CRANE TUMEUR||GR|SS\SP\SK|FAST_GEMS|3D|2.9|7.5|450|12||ge
flair|AX FLAIR FS PROP|CRANEO||RM|NONE|FAST_GEMS\FS\IR|2D|119|9000|2400|142||ge
t1|sT1W_3D_TFE SENSE|=||GR|MP|FC|3D|3.8|8.2||8||ORIGINAL\PRIMARY\M_FFE\M\FFE
t1ce|VsT1W_3D_TFE+GD SENSE|=||GR|MP||3D|3.8|8.2||8||ORIGINAL\PRIMARY\M_FFE\M\FFE
t1|eT1W_SE|=||SE|NONE|OTHER|2D|12|500||69||philips
flair|eFLAIR_longTR_SPIR|=||IR|SK|FS|2D|120|11000|2800|90||ORIGINAL\PRIMARY\M_IR\M\IR
t2|eT2W_TSE|=||SE|SK|OTHER|2D|110|4400||90||philips
t1ce|T1W_SE_TRA_GD CLEAR|=||SE|NONE||2D|10|520||70||philips
t1ce|3D T1 TFE TRA GADO|=|TFE|GR|SS\SP||3D|4.6|9.9||8||ORIGINAL\PRIMARY\M_FFE\M\FFE
t1ce|Reg - WIP 3D BRAIN VIEW T1 POST|3D BRAIN VIEW T1 POST|TSE|SE|SK|FS|3D|28|600||90||DERIVED\PRIMARY\M_SE\M\SE
flair|3D_FLAIR_CS|WIP 3D_FLAIR_CS|TIR|IR|SK|FS|3D|340|4800|1650|90||ORIGINAL\PRIMARY\M_IR\M\IR
flair|VWIP FLAIR VISTA 3D SENSE|FLAIR VISTA|TSE|IR|SK|FS|3D|276|8000|2400|90||ORIGINAL\PRIMARY\M_IR\M\IR
t1|T1W_IR_TSE|=||IR|SK|OTHER|2D|15|2500|800|90||ORIGINAL\PRIMARY\R_IR\R\IR
t1ce|T1 TRA na contrast|T1W_TSE_TRA|TSE|SE|SK||2D|10|600||90||philips
t1ce|sT1 TFE 3D +C|sT1 TFE 3D|TFE|GR|SS\SP||3D|3.5|7.6||8||ORIGINAL\PRIMARY\M_FFE\M\FFE
t1ce|T1 FFE cor c.m.|T1 FFE cor||GR|SP||2D|2.3|180||80||ORIGINAL\PRIMARY\M_FFE\M\FFE
localizer|Survey|=||GR|SP||2D|5|11||20||ORIGINAL\PRIMARY\M_FFE\M\FFE
localizer|SURVEY_32ch_HeadCoil|=||GR|SP||2D|3.3|9||15||ORIGINAL\PRIMARY\M_FFE\M\FFE
|Ref_Head_8|=||GR|SS||3D|0.75|4||7||ORIGINAL\PRIMARY\M_FFE\M\FFE
adc|dDWI_SSh|DWI_SSh|DwiSE|SE|SK|FS|2D|72|3200||90||DERIVED\SECONDARY\ADC\ADC
swi|VEN_BOLD HR SENSE|VEN_BOLD||GR|NONE|FC|3D|23|17||10||ORIGINAL\PRIMARY\M_FFE\M\FFE
t2star|T2W_FFE|=|FFE|GR|SP|FC|2D|16|700||18||ORIGINAL\PRIMARY\M_FFE\M\FFE
t2|DRIVE 3D IAC|T2W_DRIVE_3D|TSE|SE|SK||3D|250|1500||90||philips
dir|3D_DIR|=|TSE|IR|SK|FS|3D|302|5500|2550|90||ORIGINAL\PRIMARY\M_IR\M\IR
stir|STIR longTE COR|STIR_longTE|TIR|IR|SK||2D|80|4000|180|90||ORIGINAL\PRIMARY\M_IR\M\IR
t1ce|MPR TRA T1 GD|3D T1 TFE|TFE|GR|SS\SP||3D|3.5|7.6||8||DERIVED\SECONDARY\MPR\M\FFE
t2|T2W_TSE_FS SENSE|T2W_TSE_FS|TSE|SE|SK|FS|2D|100|3000||90||philips
t2|T2 GRASE TRA|T2 GRASE|GRASE|EP\SE|SK||2D|90|3800||90||philips
t2|T2 MULTIVANE XD TRA|T2W_MV|TSE|SE|SK||2D|107|4300||90||philips
t1ce|THRIVE 3D post Gd|THRIVE|TFE|GR|SP|FS|3D|2.2|4.6||10||ORIGINAL\PRIMARY\M_FFE\M\FFE
t1|T1 AX SEM CONTRASTE|T1W_SE|SE|SE|NONE||2D|11|520||70||philips
t1ce|T1 AX COM CONTRASTE|T1W_SE|SE|SE|NONE||2D|11|520||70||philips
t1|T1W_3D_FFE|=||GR|SP||3D|4.6|25||30||ORIGINAL\PRIMARY\T1\NONE
t2|FSE2D T2 AX|Head|FSE2D|SE|SK\OSP||2D|105|4800||90||ge
flair|FLAIR Fat-Sat AX|Head|FSE2D|SE\IR|SK|FS|2D|105|10000|2700|90||ge
t1|T1 SE AX|Head|SE2D|SE|NONE||2D|12|540||70||ge
t1ce|T1 SE AX CE|Head|SE2D|SE|NONE||2D|12|540||70||ge
t1ce|3D MPRAGE Gd|Head|FFE3D|GR|SP\MP|IR|3D|3.2|7.6|900|9||ge
angiography|TOF MRA|MRA|FE3D|GR|MTC||3D|6.8|23||20||ge
swi|FSBB|Head|FE3D_mEcho|GR|SP|FC|3D|40|50||20||ge
dwi|DWI b1000|Head|SE_EPI2D|EP\SE|NONE|FS|2D|100|6000||90||ge
t1ce|T1 FS Cor [+C]|Head|FE2D|GR|SP|FS|2D|5.5|210||75||ge
flair|MPV FLAIR 3D Sag|Head|FASE3D|SE\IR|SK||3D|340|6500|1900|90||ge
t1|T1WI ax|BRAIN|SE|SE|NONE||2D|13|450||90||ge
t2|T2WI ax|BRAIN|FSE|SE|SK||2D|100|4000||90||ge
flair|FLAIR ax|BRAIN|FIR|SE\IR|SK||2D|105|9000|2000|90||ge
t1ce|T1WI Gd ax|BRAIN|SE|SE|NONE||2D|13|450||90||ge
t1ce|CE RSSG 3D|BRAIN CE|RSSG|GR|SP||3D|5|15||25||ge
t2star|T2*WI ax|BRAIN|GE|GR|NONE||2D|25|600||20||ge
|BSI|BRAIN|GE|GR|NONE||3D|23|48||15||ge
t1ce|t1_fl2d_tra_p2 Kontrastmittel|t1_fl2d_tra_p2|*fl2d1|GR|SP||2D|2.6|230||70||siemens
spine|Sag T1 C-Spine|t1_tse_sag_cspine|*tse2d1_3|SE|SK\SP\OSP||2D|10|600||150||siemens
angiography|venous TOF 2D|fl_tof2d|*fl2d1|GR|SP\OSP||2D|7|25||60||siemens
t1ce|Post Ax T1|TCGA||SE|NONE|FC|2D|16|600||90||ge
t1|SAG FSPGR BRAVO|ADULT BRAIN||GR|SS\SP\MP\SK|FAST_GEMS\IR|3D|3.1|8|450|12||ge
localizer|Screen Save||||||||||||DERIVED\SECONDARY\SCREEN SAVE
spectroscopy|MRS PROBE-P 144|BRAIN||RM|NONE||2D|144|1500||90||ge
flair|OBL FLAIR CLEAR|FLAIR||IR|SK||2D|140|6000|2000|90||ORIGINAL\PRIMARY\M_IR\M\IR
t2|T2/TSE/AX|T2/TSE||SE|SK||2D|90|4100||90||philips
t1ce|T1 3D FFE contrast Ax|Head|FFE3D|GR|SP||3D|5.5|14||20|Gadovist|ge
"""
"""What it is, SeriesDescription, ProtocolName (``=``: the same), SequenceName, ScanningSequence, SequenceVariant,
ScanOptions, MRAcquisitionType, EchoTime, RepetitionTime, InversionTime, FlipAngle, ContrastBolusAgent, ImageType (or
its name in ``_IMAGE_TYPES``).
"""


def _whole(line: str) -> Row:
    wanted, description, protocol, name, *rest, agent, kind = line.split("|")
    sequence, variant, options = (tuple(part.split("\\")) if part else () for part in rest[:3])
    times = {key: float(text) if text else None for key, text in zip(("te", "tr", "ti", "fa"), rest[4:], strict=True)}
    measured: dict[str, object] = {
        "protocol": description if protocol == "=" else protocol,
        "name": name,
        "scanning_sequence": sequence,
        "sequence_variant": variant,
        "scan_options": options,
        "acquisition_type": rest[3],
        "agent": agent,
        "type": tuple(_IMAGE_TYPES.get(kind, kind).split("\\")),
    }
    return description, measured | times, wanted


# Whole headers, written by somebody who had seen neither rules nor words. First counted: t1 23 of 23, t1ce 43 of 44, t2
# 16 of 16, flair 16 of 16, none of these 47 of 53. What was written down as none of these but is a reformat stands here
# as its contrast (5), since that is how rules call it, and so does "DRIVE 3D IAC", which is still seen as t2.
BLIND: list[Row] = [_whole(line) for line in _WHOLE.strip().splitlines()]
