"""The simulators, each against a step-by-step loop, a numerical integration, a draw or a number worked out by hand."""

import subprocess
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from forgetlab import ForgetlabError
from forgetlab.simulators import (
    KINDS,
    expected_shares,
    importance_cloud,
    interference,
    quadratic,
    two_tasks,
)

RNG_SEEDS = range(8)


# --- two tasks -------------------------------------------------------------------------------------------------


def valleys(overlap, curvature, slack):
    """Both Hessians, by rotating diag(curvature, curvature·slack) through the angle between the tasks."""
    angle = np.arccos(np.sqrt(overlap))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    H = np.diag([curvature, curvature * slack])
    return H, turn @ H @ turn.T, turn[:, 0]


def by_hand(rate, decay, overlap, lam, pull, steps, steps_old, curvature, slack, distance):
    """The same run one step at a time."""
    H_old, H_new, u = valleys(overlap, curvature, slack)
    new = distance * u
    theta = np.array([-distance if steps_old else 0.0, 0.0])
    path = [theta]
    for t in range(steps_old):
        theta = theta - rate * (1 - decay) ** t * H_old @ theta
        path.append(theta)
    anchor = theta
    F = H_old if pull == "ewc" else np.eye(2)
    for t in range(steps):
        gradient = H_new @ (theta - new) + lam * F @ (theta - anchor)
        theta = theta - rate * (1 - decay) ** t * gradient
        path.append(theta)
    return np.array(path)


@pytest.mark.parametrize("seed", RNG_SEEDS)
def test_two_tasks_is_gradient_descent_step_by_step(seed):
    rng = np.random.default_rng(seed)
    settings = {
        "rate": rng.uniform(0.01, 0.6),
        "decay": rng.choice([0.0, 0.02, 0.3]),
        "overlap": rng.choice([0.0, 1.0, rng.uniform()]),
        "lam": rng.choice([0.0, rng.uniform(0, 3)]),
        "pull": ["ewc", "l2sp"][seed % 2],
        "steps": 60,
        "steps_old": [0, 25][seed // 2 % 2],
        "curvature": rng.uniform(0.2, 1.0),
        "slack": rng.choice([0.0, 0.1, 1.0]),
        "distance": rng.uniform(0.5, 3),
    }
    run, path = two_tasks(**settings), by_hand(**settings)
    np.testing.assert_allclose(run.path, path, atol=1e-12)
    assert run.steps.tolist() == list(range(-settings["steps_old"], 61))
    H_old, H_new, u = valleys(settings["overlap"], settings["curvature"], settings["slack"])
    np.testing.assert_allclose(run.loss_old, [p @ H_old @ p / 2 for p in path], atol=1e-12)
    gaps = [p - settings["distance"] * u for p in path]
    np.testing.assert_allclose(run.loss_new, [g @ H_new @ g / 2 for g in gaps], atol=1e-12)


def test_small_steps_follow_the_gradient_flow():
    """RK4 on θ' = −∇L, whose curves are exponentials; the gap shrinks with the rate."""
    H_old, H_new, u = valleys(0.3, 1.0, 0.05)

    def slope(theta):
        return -(H_new @ (theta - 2 * u) + 0.7 * H_old @ theta)

    theta, h = np.zeros(2), 0.01
    for _ in range(500):
        a = slope(theta)
        b = slope(theta + h / 2 * a)
        c = slope(theta + h / 2 * b)
        theta = theta + h / 6 * (a + 2 * b + 2 * c + slope(theta + h * c))
    gaps = [
        np.abs(two_tasks(rate=5 / n, steps=n, overlap=0.3, lam=0.7).path[-1] - theta).max() for n in (50, 500, 5000)
    ]
    assert gaps[2] < 1e-3
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.2)  # first order in the rate
    assert gaps[1] / gaps[2] == pytest.approx(10, rel=0.02)


def test_learning_and_forgetting_curves_have_their_closed_form():
    t = np.arange(81)
    run = two_tasks(rate=0.25, overlap=0.4, curvature=0.8, slack=0.1, distance=3, steps=80)
    left = (1 - 0.25 * 0.8) ** t
    end = 0.5 * 0.8 * 9 * (0.1 + 0.9 * 0.4)
    np.testing.assert_allclose(run.loss_new, 0.5 * 0.8 * 9 * left**2, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(run.loss_old, end * (1 - left) ** 2, rtol=1e-9, atol=1e-14)
    assert run.equilibrium_loss_old == pytest.approx(end)
    assert run.equilibrium_loss_new == pytest.approx(0, abs=1e-20)
    np.testing.assert_allclose(run.score_new, np.exp(-run.loss_new))
    np.testing.assert_allclose(run.score_old, np.exp(-run.loss_old))


def test_a_decaying_rate_gives_the_q_binomial_sum():
    """Π_{s<t} (1 − x qˢ) = Σ_k (−1)ᵏ q^{k(k−1)/2} [t over k]_q xᵏ: what is left of the new task's error."""
    q, x, t = 0.7, 0.5, 12
    binomial = [1.0]
    for k in range(t):
        binomial.append(binomial[-1] * (1 - q ** (t - k)) / (1 - q ** (k + 1)))
    left = sum((-1) ** k * q ** (k * (k - 1) / 2) * b * x**k for k, b in enumerate(binomial))
    run = two_tasks(rate=x, decay=1 - q, steps=t)
    assert np.sqrt(run.loss_new[-1] / run.loss_new[0]) == pytest.approx(left, rel=1e-9)
    longer = two_tasks(rate=x, decay=1 - q, steps=2000)
    assert longer.loss_new[-1] > 0.01 * longer.loss_new[0]  # the rate dies before the task is learned
    assert longer.loss_old[-1] < 0.8 * longer.equilibrium_loss_old


def test_forgetting_grows_in_a_straight_line_with_the_overlap():
    ends = [two_tasks(overlap=o, steps=300).loss_old[-1] for o in (0, 0.25, 0.5, 0.75, 1)]
    np.testing.assert_allclose(ends, [0.1, 0.575, 1.05, 1.525, 2.0], rtol=1e-9)
    assert two_tasks(overlap=0, slack=0).loss_old.max() == 0


def test_the_old_task_is_learned_first():
    run = two_tasks(steps_old=200, overlap=0.5, lam=2.0)
    start = run.steps == 0
    assert run.loss_old[0] == pytest.approx(2.0)
    assert run.loss_old[start] < 1e-15
    alone = two_tasks(overlap=0.5, lam=2.0)
    np.testing.assert_allclose(run.path[run.steps >= 0], alone.path, atol=1e-7)
    assert run.loss_new[start] < run.loss_new[0]  # what overlaps carries over


@pytest.mark.parametrize("pull", ["ewc", "l2sp"])
def test_the_equilibrium_is_where_the_pulled_loss_is_least(pull):
    run = two_tasks(overlap=0.6, lam=0.8, pull=pull, steps=2000)
    F = run.hessian_old if pull == "ewc" else np.eye(2)

    def loss(theta):
        return quadratic(theta, run.hessian_new, run.optimum_new) + 0.8 / 2 * theta @ F @ theta

    around = [loss(run.equilibrium + 1e-3 * np.array([np.cos(a), np.sin(a)])) for a in np.linspace(0, 6, 30)]
    assert min(around) > loss(run.equilibrium)
    np.testing.assert_allclose(run.path[-1], run.equilibrium, atol=1e-9)
    assert run.loss_old[-1] == pytest.approx(run.equilibrium_loss_old)
    assert run.loss_new[-1] == pytest.approx(run.equilibrium_loss_new)


def test_known_equilibria():
    l2sp = two_tasks(overlap=0.5, lam=3.0, pull="l2sp")  # h/(h + λ) of the way
    np.testing.assert_allclose(l2sp.equilibrium, 0.25 * l2sp.optimum_new, rtol=1e-12)
    joint = two_tasks(overlap=0.5, lam=1.0)
    axis = np.linspace(-4, 4, 801)
    grid = np.stack(np.meshgrid(axis, axis), -1)
    both = quadratic(grid, joint.hessian_old, joint.optimum_old) + quadratic(grid, joint.hessian_new, joint.optimum_new)
    total = joint.equilibrium_loss_old + joint.equilibrium_loss_new
    assert total <= both.min()
    assert total == pytest.approx(both.min(), rel=1e-3)
    for pull in ("ewc", "l2sp"):
        held = two_tasks(overlap=0.5, lam=1e12, pull=pull)
        assert held.equilibrium_loss_old < 1e-11
        assert held.equilibrium_loss_new <= two_tasks(overlap=0.5).loss_new[0]
    np.testing.assert_allclose(two_tasks(lam=1e12, pull="l2sp").equilibrium, 0, atol=1e-11)


def test_ewc_keeps_more_than_l2sp_for_the_same_learning():
    """EWC's equilibria are the Pareto front: L_new + λ L_old is least there."""
    for lam in (0.1, 1.0, 10.0):
        ewc = two_tasks(overlap=0.5, lam=lam)
        best = ewc.equilibrium_loss_new + lam * ewc.equilibrium_loss_old
        for other in np.logspace(-3, 3, 25):
            l2sp = two_tasks(overlap=0.5, lam=other, pull="l2sp")
            assert l2sp.equilibrium_loss_new + lam * l2sp.equilibrium_loss_old > 1.01 * best
    same = [two_tasks(slack=1, lam=0.7, pull=pull).path for pull in ("ewc", "l2sp")]  # every F is 1
    np.testing.assert_allclose(*same, atol=1e-14)


def test_the_stability_limit():
    limit = two_tasks(lam=5.0, overlap=0.5).stable_rate
    H_old, H_new, _ = valleys(0.5, 1.0, 0.05)
    assert limit == pytest.approx(2 / np.linalg.norm(H_new + 5 * H_old, 2))
    below, above = (two_tasks(rate=limit * f, lam=5.0, overlap=0.5, steps=4000) for f in (0.99, 1.01))
    assert not below.diverges
    assert below.loss_new[-1] == pytest.approx(below.equilibrium_loss_new)
    assert above.diverges
    assert above.loss_new[-1] > 1e20
    settles = two_tasks(rate=1.5 * limit, decay=0.05, lam=5.0, overlap=0.5, steps=200)
    assert not settles.diverges
    assert settles.loss_old.max() > 10 * settles.loss_old[-1]


def test_what_diverges_stays_finite():
    for run in (
        two_tasks(rate=50, steps=5000),
        two_tasks(rate=50, steps=5000, steps_old=5000, decay=1e-4),
        two_tasks(rate=1e6, lam=1e6, steps=500),
    ):
        assert run.diverges
        for values in (run.path, run.loss_old, run.loss_new, run.score_old):
            assert np.isfinite(values).all()
        assert run.loss_new[-1] > 1e80
        assert run.score_new[-1] == 0
    # η_t = 2⁴⁶, 2⁴⁵ … 1: the error leaves the float range, then the step with ηh = 1 hits the optimum
    saved = two_tasks(rate=2.0**46, decay=0.5, overlap=1, steps=60)
    assert saved.loss_new[40] > 1e80
    np.testing.assert_array_equal(saved.path[-1], saved.optimum_new)


# --- importance cloud ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("correlation", [-0.9, 0.0, 0.4, 0.95])
def test_cloud_has_the_chosen_correlation(correlation):
    cloud = importance_cloud(100_000, correlation, seed=1, spread=1.5)
    logs = np.log10([cloud.old, cloud.new])
    assert np.corrcoef(logs)[0, 1] == pytest.approx(correlation, abs=0.01)
    np.testing.assert_allclose(logs.std(axis=1), 1.5, rtol=0.02)
    np.testing.assert_allclose(np.median(logs, axis=1), 0, atol=0.03)
    ranks = logs.argsort(axis=1).argsort(axis=1)
    assert np.corrcoef(ranks)[0, 1] == pytest.approx(6 / np.pi * np.arcsin(correlation / 2), abs=0.01)


@pytest.mark.parametrize("correlation", [-0.8, 0.0, 0.5, 0.9])
@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
def test_cloud_shares_are_those_expected(correlation, quantile):
    cloud = importance_cloud(100_000, correlation, seed=2, quantile=quantile)
    assert list(cloud.shares) == list(cloud.expected) == list(KINDS)
    for name in KINDS:
        assert cloud.shares[name] == pytest.approx(cloud.expected[name], abs=0.006)
    assert sum(cloud.expected.values()) == pytest.approx(1)
    assert sum(cloud.shares.values()) == pytest.approx(1)


def test_expected_shares_by_hand():
    for correlation in (-1, -0.5, 0, 0.3, 1):
        shares = expected_shares(correlation)
        shared = 0.25 + np.arcsin(correlation) / (2 * np.pi)
        assert shares == pytest.approx(dict(zip(KINDS, (shared, 0.5 - shared, 0.5 - shared, shared), strict=True)))
    assert expected_shares(0.5)["shared"] == pytest.approx(1 / 3)
    assert expected_shares(0, 0.9)["shared"] == pytest.approx(0.01)  # independent
    assert expected_shares(1, 0.9) == pytest.approx(dict(zip(KINDS, (0.9, 0, 0, 0.1), strict=True)), abs=1e-7)
    assert expected_shares(-1, 0.9) == pytest.approx(dict(zip(KINDS, (0.8, 0.1, 0.1, 0), strict=True)), abs=1e-7)
    assert expected_shares(-1, 0.2) == pytest.approx(dict(zip(KINDS, (0, 0.2, 0.2, 0.6), strict=True)), abs=1e-7)


def test_expected_shares_against_the_density_on_a_grid():
    """The bivariate normal density added up above its 0.8413 quantile, which is z = 1."""
    rho, width = 0.6, 0.01
    x = 1 + width * (np.arange(700) + 0.5)
    form = (x[:, None] ** 2 - 2 * rho * x[:, None] * x + x**2) / (1 - rho**2)
    total = (np.exp(-form / 2) / (2 * np.pi * np.sqrt(1 - rho**2))).sum() * width**2
    assert expected_shares(rho, 0.8413447460685429)["shared"] == pytest.approx(total, abs=1e-6)


def test_cloud_groups_one_by_one():
    cloud = importance_cloud(300, 0.3, seed=3, quantile=0.7)
    counts = dict.fromkeys(KINDS, 0)
    for old, new, group in zip(cloud.old, cloud.new, cloud.group, strict=True):
        critical = (bool(old > cloud.threshold_old), bool(new > cloud.threshold_new))
        name = {(True, False): 2, (False, True): 1, (True, True): 3, (False, False): 0}[critical]
        assert group == name
        counts[KINDS[name]] += 1
    assert cloud.shares == {name: count / 300 for name, count in counts.items()}
    assert (cloud.old > cloud.threshold_old).sum() == (cloud.new > cloud.threshold_new).sum() == 90


def test_the_seed_decides_the_cloud():
    first, again, other = (importance_cloud(50, seed=s) for s in (4, 4, 5))
    assert np.array_equal(first.old, again.old)
    assert np.array_equal(first.new, again.new)
    assert not np.array_equal(first.old, other.old)
    stricter = importance_cloud(50, seed=4, quantile=0.9)  # a moved threshold keeps the points
    assert np.array_equal(first.new, stricter.new)
    assert stricter.threshold_new > first.threshold_new


# --- interference ----------------------------------------------------------------------------------------------


def updates_by_hand(g_old, g_new):
    agem = g_new if g_new @ g_old >= 0 else g_new - (g_new @ g_old) / (g_old @ g_old) * g_old
    parts = []
    for mine, other in ((g_old, g_new), (g_new, g_old)):
        parts.append(mine if mine @ other >= 0 else mine - (mine @ other) / (other @ other) * other)
    return {"plain": g_new, "agem": agem, "joint": g_old + g_new, "pcgrad": parts[0] + parts[1]}


@pytest.mark.parametrize("seed", RNG_SEEDS)
def test_interference_is_the_change_of_a_quadratic(seed):
    rng = np.random.default_rng(seed)
    angle, c, rate = rng.uniform(0, 180), rng.uniform(0, 3), rng.uniform(0.01, 1)
    old, new = rng.uniform(0, 2), rng.uniform(0.1, 2)
    result = interference(angle, c, rate, old=old, new=new)
    phi = np.radians(angle)
    g_old, g_new = old * np.array([1.0, 0.0]), new * np.array([np.cos(phi), np.sin(phi)])
    for name, update in updates_by_hand(g_old, g_new).items():
        np.testing.assert_allclose(result.updates[name], update, atol=1e-12)
        step = -rate * update
        for gradient, changes in ((g_old, result.change_old), (g_new, result.change_new)):
            start = np.array([0.3, -0.7])  # L(θ) = (g − cθ₀)·θ + ½c‖θ‖², whose gradient at θ₀ is g
            before, after = ((gradient - c * start) @ p + c / 2 * p @ p for p in (start, start + step))
            assert changes[name] == pytest.approx(after - before, abs=1e-12)


def test_interference_in_numbers():
    result = interference(120, 1.0, 0.1)
    assert result.change_old["plain"] == pytest.approx(0.055)  # −0.1·cos 120° + 0.005
    assert result.change_old["agem"] == pytest.approx(0.005 * 0.75)  # first order gone; ‖u‖² = sin² 120°
    assert result.change_new["agem"] == pytest.approx(-0.1 * 0.75 + 0.005 * 0.75)  # the price: sin² of the progress
    assert result.change_old["pcgrad"] == pytest.approx(-0.1 * 0.75 + 0.005 * 0.75 * 3)
    assert result.change_old["joint"] == pytest.approx(-0.1 * 0.5 + 0.005)
    opposed = interference(180, 1.0, 0.1)
    for name in ("agem", "joint", "pcgrad"):
        np.testing.assert_allclose(opposed.updates[name], 0, atol=1e-15)


def test_without_conflict_nothing_is_projected():
    result = interference([0, 45, 89], 2.0, 0.3)
    np.testing.assert_array_equal(result.updates["agem"], result.updates["plain"])
    np.testing.assert_array_equal(result.updates["pcgrad"], result.updates["joint"])


def test_break_even():
    angle, c = np.array([0.0, 30.0, 60.0, 85.0])[:, None], np.array([0.5, 2.0])
    even = interference(angle, c, old=1.5, new=0.7).break_even
    assert even.shape == (4, 2)
    for factor, sign in ((0.9, -1), (1.1, 1)):
        assert (np.sign(interference(angle, c, factor * even, old=1.5, new=0.7).change_old["plain"]) == sign).all()
    np.testing.assert_allclose(interference(angle, c, even, old=1.5, new=0.7).change_old["plain"], 0, atol=1e-12)
    assert interference(60, 2.0).break_even == pytest.approx(0.5)
    assert (interference([91, 135, 180], [[0.0], [1.0]]).break_even == 0).all()
    assert interference(30, 0.0).break_even == np.inf
    assert interference(30, 0.0, old=0).break_even == np.inf
    assert interference(30, 1.0, old=0).break_even == 0


def test_at_the_old_optimum_only_curvature_is_left():
    result = interference([10, 120, 180], 2.0, 0.1, old=0, new=3)
    np.testing.assert_allclose(result.change_old["plain"], 0.5 * 0.01 * 2 * 9)
    for update in result.updates.values():
        np.testing.assert_array_equal(update, result.gradient_new)


def test_interference_broadcasts():
    angles, rates = np.linspace(0, 180, 7)[:, None], np.array([0.1, 0.5, 2.0])
    whole = interference(angles, 1.5, rates)
    assert whole.updates["agem"].shape == (7, 3, 2)
    for i in range(7):
        for j in range(3):
            one = interference(float(angles[i, 0]), 1.5, float(rates[j]))
            assert one.change_old.keys() == {"plain", "agem", "joint", "pcgrad"}
            for name, change in one.change_old.items():
                assert whole.change_old[name][i, j] == pytest.approx(float(change), abs=1e-15)
                assert whole.change_new[name][i, j] == pytest.approx(float(one.change_new[name]), abs=1e-15)


# --- all -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("simulate", [two_tasks, importance_cloud, interference])
def test_results_say_that_they_are_simulated_and_stay_as_they_are(simulate):
    result = simulate()
    assert result.source == "simulated"
    with pytest.raises(FrozenInstanceError):
        result.source = "live"


def test_import_is_cheap():
    heavy = {"torch", "matplotlib", "transformers", "scipy"}
    code = f"import sys, forgetlab.simulators; print(*{heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: two_tasks(rate=0), "rate must be a number above 0, got 0"),
        (lambda: two_tasks(rate=float("nan")), "rate must be a number above 0, got nan"),
        (lambda: two_tasks(rate="fast"), "rate must be a number above 0, got 'fast'"),
        (lambda: two_tasks(rate=None), "rate must be a number above 0, got None"),
        (lambda: two_tasks(rate=True), "rate must be a number above 0, got True"),
        (lambda: two_tasks(rate=[0.1, 0.2]), r"rate must be a number above 0, got \[0.1, 0.2\]"),
        (lambda: two_tasks(decay=1), "decay must be between 0 and 1, 1 excluded, got 1"),
        (lambda: two_tasks(overlap=1.5), "overlap must be between 0 and 1, got 1.5"),
        (lambda: two_tasks(slack=-0.1), "slack must be between 0 and 1, got -0.1"),
        (lambda: two_tasks(lam=float("inf")), "lam must be a number of 0 or more, got inf"),
        (lambda: two_tasks(curvature=0), "curvature must be a number above 0, got 0"),
        (lambda: two_tasks(distance=-1), "distance must be a number above 0, got -1"),
        (lambda: two_tasks(steps=0), "steps must be a whole number above 0, got 0"),
        (lambda: two_tasks(steps=10.0), "steps must be a whole number above 0, got 10.0"),
        (lambda: two_tasks(steps_old=True), "steps_old must be a whole number of 0 or more, got True"),
        (lambda: two_tasks(pull="l2-sp"), "unknown pull 'l2-sp'; did you mean 'l2sp'"),
        (lambda: importance_cloud(0), "n must be a whole number above 0, got 0"),
        (lambda: importance_cloud(correlation=1.01), "correlation must be between -1 and 1, got 1.01"),
        (lambda: importance_cloud(quantile=1), "quantile must be between 0 and 1, both excluded, got 1"),
        (lambda: importance_cloud(spread=0), "spread must be a number above 0, got 0"),
        (lambda: importance_cloud(seed=-1), "seed must be a whole number of 0 or more, got -1"),
        (lambda: expected_shares(-2), "correlation must be between -1 and 1"),
        (lambda: interference([90, 190]), "angle must be between 0 and 180, got 190"),
        (lambda: interference([[1], [2, 3]]), r"angle must be between 0 and 180, got \[1\]"),
        (lambda: interference(curvature=-1), "curvature must be a number of 0 or more, got -1"),
        (lambda: interference(rate=[0.1, 0.0]), "rate must be a number above 0, got 0"),
        (lambda: interference(old=-1), "old must be a number of 0 or more, got -1"),
        (lambda: interference(new=0), "new must be a number above 0, got 0"),
        (lambda: interference([1, 2], [1, 2, 3]), r"must broadcast, got shapes \(2,\), \(3,\), \(\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ForgetlabError, match=message):
        call()
