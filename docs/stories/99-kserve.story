# KServe's controller resets the replicas of an LLMInferenceService, so Stoker starts and stops the model with a commit.
given platform kserve-llm
given speed 600
@dev /gpu down phi4
expect "phi4 is down" within 30s
expect replicas phi4-kserve 0
@dev /gpu up phi4
expect "Starts by: a commit of ˋreplicas: 1ˋ to main"
@lead clicks "Approve"
expect "phi4 is up and answers" within 60s
kubectl scale phi4-kserve 0
expect replicas phi4-kserve 1 within 5s
@dev /gpu down phi4
expect "phi4 is down" within 30s
expect replicas phi4-kserve 0
