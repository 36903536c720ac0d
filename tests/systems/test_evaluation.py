from systems.evaluation import gathered, mean_scores, summary

SCORES = {
    ("test", 1): {"view": "b", "psnr": 30.0, "ssim": 0.5, "lpips": None},
    ("path", 0): {"view": "path 000"},
    ("test", 0): {"view": "a", "psnr": 20.0, "ssim": 0.7, "lpips": None},
}


def test_scores_come_in_order() -> None:
    assert list(gathered(SCORES, 1)) == [("path", 0), ("test", 0), ("test", 1)]


def test_only_views_with_photographs_are_averaged() -> None:
    assert mean_scores(SCORES, "test") == {"psnr": 25.0, "ssim": 0.6, "lpips": None}
    assert mean_scores(SCORES, "path") == {}
    result = summary(gathered(SCORES, 1), "test")
    assert result["n_views"] == 2 and [view["view"] for view in result["views"]] == ["a", "b"]
