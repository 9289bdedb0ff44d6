def test_tiny(tiny_run):
    assert tiny_run.classifier.scale > 0
