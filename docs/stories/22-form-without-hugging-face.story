# Hugging Face refuses requests: the form asks for the figures that it would have looked up.
given speed 120
break hf-429
@dev /model add coder-mini
expect "Model on Hugging Face"
@dev fills "Model on Hugging Face" with "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"
expect "The size of the weights" within 30s
@dev fills "The size of the weights" with "2.7GB"
@dev fills "The number of layers" with "36"
@dev fills "The number of KV heads" with "2"
@dev fills "The size of a head" with "128"
@dev fills "The longest context that the model reads" with "32768"
expect "Sizing: fits" within 30s
@dev submits
expect "Pull request #1" within 30s
