from tombola_cli.config.choices import choices, purpose


def test_a_new_yaml_is_a_new_choice(tmp_path):
    (tmp_path / "task" / "glue").mkdir(parents=True)
    (tmp_path / "task" / "glue" / "cola.yaml").write_text(
        "# @package _global_\n# Corpus of Acceptability.\nname: glue/cola\n"
    )
    (tmp_path / "task" / "math.yaml").write_text("name: math\n")
    assert choices(tmp_path)["task"] == ["glue/cola", "math"]
    assert choices(tmp_path)["method"] == []
    assert purpose(tmp_path, "task", "glue/cola") == "Corpus of Acceptability"
    assert purpose(tmp_path, "task", "math") == ""
