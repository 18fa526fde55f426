"""Studies over networks and conditions: ablation, other cameras imitated, windows without tracking, calibration."""
