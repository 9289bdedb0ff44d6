"""The program that writes report pages."""

import shutil

from siamese_keras import report


def test_one_run_and_several(tiny, tiny_run, sample, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run, tmp_path / "first")
    tiny.evaluate(sample).save(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    assert report.main(["first"]) == 0
    assert capsys.readouterr().out == "written: first/report.html\n"
    assert report.main(["first", "second"]) == 0
    assert capsys.readouterr().out == "written: comparison.html\n"
    assert report.main(["first", "--output", "page.html"]) == 0
    assert (tmp_path / "page.html").read_text() == (tmp_path / "first/report.html").read_text()


def test_bad_input_ends_in_one_line(tmp_path, capsys):
    assert report.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"error: `{tmp_path}` is not the folder of a complete run: it has no config.json.\n"
    )
    assert report.main([str(tmp_path), "--output", "page.pdf"]) == 1
    assert capsys.readouterr().err == (
        "error: The output must end in .html. Received: `page.pdf`\n"
    )
