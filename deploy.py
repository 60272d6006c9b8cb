"""From a bare host to a served model: the story, one line per role.

pyinfra inventories/prod.py deploy.py
"""

from pyinfra import host

from ops import report
from ops.planning import plan_for
from roles import bundle, conda, dcgm, gateway, models, nvidia, ollama, torch, vllm
from roles import host as ground
from roles.host.facts import Probe

report.begin(host)
probe = host.get_fact(Probe)
plan, secrets = plan_for(host, probe)  # no plan: this host is refused, in one sentence; the others go on

if plan and probe:
    bundle.serve(plan, probe)
    taken = bundle.check(plan, probe)
    ground.clear(plan, probe)
    gateway.clear(plan, probe)
    ground.prepare(plan, probe)
    nvidia.install(plan, probe)
    conda.install(plan, probe)
    models.start(plan, probe, secrets.tokens)
    torch.install(plan, probe)
    dcgm.burn_in(plan, probe)
    installed = vllm.install(plan, probe)
    conda.hold(plan, probe)
    models.join(plan, probe, secrets.tokens)
    vllm.serve(plan, probe, installed)
    ollama.serve(plan, probe)
    gateway.serve(plan, probe, secrets)
    vllm.answer(plan, probe, installed)
    models.tidy(plan, probe)
    bundle.tidy(plan, probe, taken)
    ground.leave(plan, probe)
    ground.stamp(plan, probe)
