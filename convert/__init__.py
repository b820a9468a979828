SETTINGS = ("model_arch", "weight_dir", "device", "train_path", "test_path", "bad_images")  # that converters take
