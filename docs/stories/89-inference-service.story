# KServe leaves the replicas of an InferenceService's Deployment to its autoscaler, which does nothing at zero, so Stoker sets
# them through the API. `minReplicas: 0` in git does not stop a model, so both models were running.
given platform kserve-flux
given speed 600
@dev /gpu down phi
expect "phi is down" within 30s
@dev /gpu down qwen
expect "qwen is down" within 30s
expect replicas qwen-predictor 0
@dev /gpu up qwen
expect "Kustomization: models"
@lead clicks "Approve"
expect "qwen is up and answers" within 60s
expect replicas phi-predictor 0
@dev /gpu down qwen
expect "qwen is down" within 30s
expect replicas qwen-predictor 0
