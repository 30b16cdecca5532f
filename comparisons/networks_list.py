"""The networks of comparisons.networks, each with the smallest sensible image size."""

import re
from collections import Counter

from lightweight.networks.zoo import list_models

LARGE = (  # of torchvision's, those of more than 100 million parameters
    *(
        "convnext_large",
        "efficientnet_v2_l",
        "regnet_x_32gf",
        "regnet_y_32gf",
        "regnet_y_128gf",
        "vgg",
        "vit_h",
        "vit_l",
    ),
    "wide_resnet101_2",
)
SIZES = {"alexnet": 64, "inception_v3": 96, "maxvit_t": 224, "swin": 64}  # torchvision's by prefix; else 32
TIMM = {
    32: "resnet18 mobilenetv4_conv_small mobilenetv4_hybrid_medium repvgg_a0 hrnet_w18_small dla34 lcnet_050 "
    "gernet_s starnet_s1 repvit_m0_9 efficientnet_lite0 selecsls42b repghostnet_050 mobileone_s0 "
    "xception41 ese_vovnet19b_dw hgnetv2_b0 tinynet_e fbnetc_100 semnasnet_075 legacy_seresnet18 resnetv2_50 "
    "cspresnet50 cspdarknet53 efficientvit_b0 resmlp_12_224 res2net50_26w_4s mixer_s32_224 "
    "inception_next_atto ghostnet_100 resnest14d vit_tiny_patch16_224 deit_tiny_patch16_224 "
    "mixnet_s nfnet_l0 eca_nfnet_l0 skresnet18 poolformer_s12 poolformerv2_s12 caformer_s18 convformer_s18 "
    "convnextv2_atto convnext_zepto_rms mambaout_femto dpn48b rexnet_100 regnetz_b16 regnety_002 rdnet_tiny "
    "fasternet_t0 shvit_s1 seresnext26d_32x4d ecaresnet26t botnet26t_256 lambda_resnet26t eca_botnext26ts_256 "
    "convmixer_768_32 gmixer_24_224 gmlp_s16_224 focalnet_tiny_srf hgnet_tiny vovnet39a tresnet_m densenet121 "
    "nf_regnet_b0 darknet17 sequencer2d_s",
    64: "ghostnetv2_100 fastvit_t8 edgenext_xx_small mobilevit_xs mobilevitv2_050 mvitv2_tiny pvt_v2_b0 nest_tiny "
    "xcit_nano_12_p16_224 swin_tiny_patch4_window7_224 davit_tiny coat_lite_tiny twins_pcpvt_small "
    "nextvit_small swiftformer_xs cait_xxs24_224 eva02_tiny_patch14_224 volo_d1_224 beit_base_patch16_224 "
    "hiera_tiny_224 convit_tiny tnt_s_patch16_224",
    96: "inception_v4",
    224: "levit_128s efficientformer_l1 efficientformerv2_s0 tiny_vit_5m_224 pit_ti_224 visformer_tiny "
    "efficientvit_m0 coatnet_nano_rw_224 maxvit_tiny_tf_224 gcvit_xxtiny crossvit_tiny_240 "
    "vit_base_patch16_224",
}  # fmt: skip


def list_networks() -> list[tuple[str, int]]:
    """List the networks by name, with their image size: torchvision's classifiers that are not large, then timm's."""
    names = [name for name in list_models() if not name.startswith(LARGE)]
    sizes = [next((size for prefix, size in SIZES.items() if name.startswith(prefix)), 32) for name in names]
    known = [(f"torchvision/{name}", size) for name, size in zip(names, sizes, strict=True)]
    return known + [(f"timm/{name}", size) for size, names in TIMM.items() for name in names.split()]


def spread(networks: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Order networks so that one of each design comes first, then a second of each, and so on.

    The letters with which a name begins tell the design.
    """
    seen: Counter[str] = Counter()
    turns = []
    for name, size in networks:
        design = re.split(r"[^a-z]", name.partition("/")[2])[0]
        turns.append((seen[design], name, size))
        seen[design] += 1
    return [(name, size) for _, name, size in sorted(turns, key=lambda turn: turn[0])]
