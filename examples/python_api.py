import fss_bench

dataset = fss_bench.create_dataset("shapes")
backbone = fss_bench.create_backbone("tf_efficientnet_lite0", weights="packaged")
method = fss_bench.create_method("panet", backbone=backbone)
run = fss_bench.evaluate(method, dataset, protocol="standard", fold=0, shots=1, episodes=20)
print(f"mIoU {100 * run.metrics.miou:.2f}")
print(run.episodes[["query", "inter_fg", "union_fg", "iou_fg"]].head())
