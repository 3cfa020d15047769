"""The family: small models of several sizes, pre-trained side by side on generated text, then tuned.

==========  =====================================================================================================
module      what is in it
==========  =====================================================================================================
text        a generated world of people: facts in many phrasings, sums, counts and echoes; instructions; questions
learning    pre-training on fresh text, instruction tuning, LoRA, DPO and GRPO, for all training seeds at once
tasks       the tasks of the lifecycle study, for all seeds at once
==========  =====================================================================================================
"""
